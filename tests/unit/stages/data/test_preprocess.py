"""Preprocessing is data: what a dataset says of it is what its network, its card and its package take."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.inputs import to_inputs
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.batches import load_split

IMAGENET = Preprocess(channels=3, size=(4, 6), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def test_every_channel_has_its_own_mean_and_scale(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    save_file({"images": images, "labels": torch.arange(5)}, tmp_path / "test.safetensors")
    dataset = Dataset(folder=tmp_path, name="photos", preprocess=IMAGENET, classes=tuple("abcde"), sizes={"test": 5}, licence="")
    inputs, labels = load_split(dataset, "test")
    assert dataset.image_shape == (3, 4, 6)
    assert labels.tolist() == [0, 1, 2, 3, 4]
    for channel, (mean, std) in enumerate(zip(IMAGENET.mean, IMAGENET.std, strict=True)):
        torch.testing.assert_close(inputs[:, channel], (images[:, channel] / 255 - mean) / std)


def test_bonsais_own_inputs_are_the_same_to_the_bit_as_before_it_was_data() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    own = Preprocess.of((1, 16, 16))
    assert torch.equal(to_inputs(images, DataSpec((1, 16, 16), 2, own)), (images.float() / 255 - 0.5) / 0.5)
    assert own.sentence == "pixels / 255, minus 0.5, over 0.5"  # also what the ONNX file's metadata has always said


def test_samples_without_preprocessing_are_inputs_already() -> None:
    inputs = torch.randn(2, 1, 4, 4)
    assert torch.equal(to_inputs(inputs, DataSpec((1, 4, 4), 2)), inputs)


@pytest.mark.parametrize("wrong", [{"mean": (0.5,)}, {"std": (0.5, 0.5)}, {"std": (0.5, 0.5, 0.0)}, {"channels": 1}], ids=str)
def test_one_number_for_each_channel_is_required(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocess.model_validate({**IMAGENET.model_dump(), **wrong})


def test_it_is_told_in_words_channel_by_channel() -> None:
    assert IMAGENET.sentence == "pixels / 255, minus (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225)"


def test_the_digest_of_a_dataset_is_what_it_was_where_preprocessing_says_nothing_new(tmp_path: Path) -> None:
    plain = Dataset(folder=tmp_path, name="photos", preprocess=IMAGENET, classes=("a", "b"), sizes={}, licence="")
    assert plain.model_dump()["preprocess"] == {"channels": 3, "size": (4, 6), "mean": IMAGENET.mean, "std": IMAGENET.std}
    cropped = plain.model_copy(update={"preprocess": IMAGENET.model_copy(update={"crop": 0.875})})
    assert cropped.model_dump()["preprocess"]["crop"] == 0.875
    assert Dataset.model_validate({**cropped.model_dump(), "folder": tmp_path}) == cropped


def test_resize_crop_interpolation_and_scale_are_told_in_words() -> None:
    how = Preprocess.model_validate({**IMAGENET.model_dump(), "resize": "crop", "crop": 0.875, "interpolation": "bicubic", "scale": 65535})
    told = "resized to cover the size, the centre kept; the centre crop keeps 0.875 of the side; bicubic interpolation; pixels / 65535, minus"
    assert how.sentence.startswith(told)


@pytest.mark.parametrize("wrong", [{"scale": (1, 1)}, {"scale": 0}, {"crop": 1.5}, {"resize": "squash"}, {"size": (1, 2, 3)}], ids=str)
def test_an_impossible_preprocessing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocess.model_validate({**IMAGENET.model_dump(), **wrong})
