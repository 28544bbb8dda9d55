"""Arrays, torchvision's sets and folders of images become samples."""

from pathlib import Path

import numpy as np
import pytest
import torch
from given_samples import picture, pixels
from PIL import Image
from torchvision.datasets import CIFAR10

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.arrays import load_array
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.image_folder import load_image_folder
from bonsai.stages.data.part import Part
from bonsai.stages.data.registry import source_digest
from bonsai.stages.data.storing import hold
from bonsai.stages.data.torchvision_dataset import load_torchvision_dataset
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store


def test_arrays_come_in_one_file_or_in_a_folder(tmp_path: Path) -> None:
    inputs, targets, parts = np.arange(24, dtype=np.int16).reshape(3, 2, 4), np.array([0, 1, 1]), np.array([0, 1, 2])
    np.savez(tmp_path / "a.npz", inputs=inputs, targets=targets, parts=parts)
    (tmp_path / "b").mkdir()
    for name, array in {"inputs": inputs, "targets": targets, "parts": parts}.items():
        np.save(tmp_path / "b" / f"{name}.npy", array)
    for place in ("a.npz", "b"):
        loaded = load_array(root=str(tmp_path / place), classes=["x", "y"], scale=4095)
        held = pixels(loaded)
        assert held.preprocess.image_shape == (2, 4)
        assert held.images.dtype == torch.uint16
        assert held.images.to(torch.int64).tolist() == inputs.tolist()
        assert held.parts is not None
        assert held.parts.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arrays", "scale", "told"),
    [
        ({"inputs": np.zeros((2, 1, 3))}, 1, "there are no arrays of inputs and targets"),
        ({"inputs": np.zeros((2, 1, 3)), "targets": np.zeros(3)}, 1, "arrays do not fit each other"),
        ({"inputs": np.zeros((2, 3)), "targets": np.zeros(2)}, 1, "channels come second"),
        ({"inputs": np.zeros((2, 1, 3)), "targets": np.zeros(2)}, None, "which values stand for 0 and 1"),
    ],
    ids=["no targets", "of another length", "no channels", "no scale"],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, np.ndarray], scale: float | None, told: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        load_array(root=str(tmp_path / "a.npz"), classes=["x", "y"], scale=scale)


def test_values_beyond_the_scale_are_told_with_their_sample(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", inputs=np.array([[[0.5]], [[float("nan")]]]), targets=np.array([0, 1]))
    with pytest.raises(ConfigError, match=r"(?s)sample 1 of the dataset cannot be made.*values from nan to nan; `scale` allows 0 to 1"):
        hold(load_array(root=str(tmp_path / "a.npz"), classes=["x", "y"], scale=1))


def test_a_series_goes_all_the_way_to_inputs(tmp_path: Path, store: Store) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", inputs=rng.uniform(-2, 2, (60, 3, 7)), targets=np.arange(60) % 2)
    data = DataConfig(name="array", options={"root": str(tmp_path / "a.npz"), "classes": ("x", "y"), "scale": (-2, 2)})
    made = store.run(prepare, data=data, content=source_digest(data))
    inputs = np.concatenate(list(Part(made, "train").one_by_one()))
    assert inputs.shape[1:] == (3, 7)
    assert -1 <= inputs.min() < -0.9
    assert 0.9 < inputs.max() <= 1


def cifar(root: Path) -> Path:
    """Files of CIFAR-10's layout, with a few images of noise."""
    import hashlib
    import pickle

    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng, sums = np.random.default_rng(0), {}
    for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list):
        entry = {"data": rng.integers(0, 256, (10, 3072), np.uint8), "labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(entry))
        sums[name] = hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    sums["batches.meta"] = hashlib.md5((folder / "batches.meta").read_bytes(), usedforsecurity=False).hexdigest()
    for key in ("train_list", "test_list"):
        setattr(CIFAR10, key, [[name, sums[name]] for name, _ in getattr(CIFAR10, key)])
    CIFAR10.meta = {**CIFAR10.meta, "md5": sums["batches.meta"]}
    return root


def test_a_dataset_of_torchvision_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("train_list", "test_list", "meta"):
        monkeypatch.setattr(CIFAR10, key, getattr(CIFAR10, key))
    loaded = load_torchvision_dataset(root=str(cifar(tmp_path)), dataset="CIFAR10", mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
    held = pixels(loaded)
    assert held.classes == tuple("abcdefghij")
    assert held.images.shape == (60, 3, 32, 32)
    assert held.preprocess.std == (0.25, 0.25, 0.25)
    assert held.parts is not None
    assert np.bincount(held.parts).tolist() == [50, 0, 10]
    assert held.targets[:10].tolist() == list(range(10))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("CIFAR11", r"no dataset of this name \(did you mean 'CIFAR10'\?\)"),
        ("CIFAR10", r"files are not there.*Bonsai downloads nothing"),
        ("Food101", "files are not there"),
    ],
)
def test_a_dataset_of_torchvision_that_is_not_there_is_refused(name: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        load_torchvision_dataset(root=str(tmp_path), dataset=name)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_folder_has_images_of_any_channels_and_sizes(channels: int, tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / name / "0.png", 7, "RGB", (20, 10))
    held = pixels(load_image_folder(root=str(tmp_path), size=[4, 6], channels=channels, resize="crop", crop=0.5, interpolation="bicubic"))
    assert held.images.shape == (2, channels, 4, 6)
    assert held.preprocess.resize == "crop"


def test_a_folder_keeps_16_bits_where_the_scale_says_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(tmp_path / name / "0.png")
    held = pixels(load_image_folder(root=str(tmp_path), size=4, channels=1, scale=4095))
    assert held.images.dtype == torch.uint16
    assert int(held.images[0, 0, 0, 0]) == 4000
