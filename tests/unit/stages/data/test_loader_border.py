"""What strangers' loaders return: it is taken rightly, or refused in one message that says what to change."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from taken_data import taken
from torch.utils.data import DataLoader, TensorDataset
from walking import TINY

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.registry import LoadedImages
from bonsai.stages.tasks.registry import task_named

N, CLASSES, LICENCE = 40, ("cat", "dog"), "own"
IMAGES = torch.randint(0, 256, (N, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % 2
FLOATS = IMAGES / 255


def loaded(images: Any = IMAGES, labels: Any = LABELS, classes: Any = CLASSES, licence: Any = LICENCE, **more: Any) -> LoadedImages:
    return LoadedImages(images, labels, classes, licence, **more)


def with_value(value: float) -> torch.Tensor:
    images = FLOATS.clone()
    images[7, 0, 0, 0] = value
    return images


REFUSED: dict[str, tuple[Callable[[], object], str, str]] = {
    "nothing": (lambda: None, "its loader returns something else", "LoadedImages"),
    "DataLoader": (lambda: DataLoader(TensorDataset(IMAGES, LABELS)), "its loader returns something else", "torch.cat of its batches"),
    "Dataset": (lambda: TensorDataset(IMAGES, LABELS), "the datasets do not say which classes there are", "LoadedDatasets(datasets, classes, licence)"),
    "bare tuple": (lambda: (IMAGES, LABELS, CLASSES, LICENCE), "its loader returns something else", "name its parts"),
    "DataLoader for images": (lambda: loaded(DataLoader(TensorDataset(IMAGES, LABELS))), "images are no torch tensor", "torch.cat of its batches"),
    "numpy images": (lambda: loaded(IMAGES.numpy()), "images are no torch tensor", "torch.from_numpy"),
    "list of images": (lambda: loaded(list(IMAGES)), "images are no torch tensor", "one tensor"),
    "numpy labels": (lambda: loaded(labels=LABELS.numpy()), "labels are no torch tensor", "torch.as_tensor(labels).long()"),
    "int32 labels": (lambda: loaded(labels=LABELS.int()), "labels are another kind of number", "labels.long()"),
    "truth values for labels": (lambda: loaded(labels=LABELS.bool()), "labels are another kind of number", "labels.long()"),
    "float targets": (lambda: loaded(labels=LABELS / 3), "labels are no whole numbers", "task: regression"),
    "masks": (lambda: loaded(labels=torch.zeros(N, 8, 8).long()), "labels are masks", "segmentation"),
    "one-hot labels": (lambda: loaded(labels=torch.eye(2)[LABELS].long()), "several labels for each image", "labels.argmax(1)"),
    "labels from 1": (lambda: loaded(labels=LABELS + 1), "labels name classes that are not there", "count from 1: subtract 1"),
    "labels beyond the classes": (lambda: loaded(labels=LABELS * 5), "labels name classes that are not there", "name every class"),
    "negative labels": (lambda: loaded(labels=LABELS - 1), "labels name classes that are not there", "from 0"),
    "fewer labels": (lambda: loaded(labels=LABELS[:-1]), "not as many labels as images", "in the same order"),
    "no images": (lambda: loaded(IMAGES[:0], LABELS[:0]), "images have another shape", "all images"),
    "time series": (lambda: loaded(torch.rand(N, 3, 100)), "images have no channels, or are none", "time series"),
    "table": (lambda: loaded(torch.rand(N, 12)), "images have another shape", "all images"),
    "video": (lambda: loaded(torch.zeros(N, 4, 3, 8, 8)), "images have another shape", "all images"),
    "channels last": (lambda: loaded(IMAGES.permute(0, 2, 3, 1)), "the channels stand last", "images.permute(0, 3, 1, 2)"),
    "floats without a range": (lambda: loaded(FLOATS), "images are no uint8, and their range is not stated", "value_range=(0, 1)"),
    "uint16 without a range": (lambda: loaded((IMAGES.int() * 16).to(torch.uint16)), "their range is not stated", "value_range=(0, 4095)"),
    "normalised without a range": (lambda: loaded(FLOATS * 4 - 2), "their range is not stated", "value_range=(black, white)"),
    "floats cast to uint8": (lambda: loaded(FLOATS.to(torch.uint8)), "all but black", "value_range=(0, 1)"),
    "truth values for images": (lambda: loaded(IMAGES > 99), "images are truth values", "* 255"),
    "NaN": (lambda: loaded(with_value(float("nan")), value_range=(0, 1)), "NaN or infinite", "mend the loader"),
    "infinity": (lambda: loaded(with_value(float("inf")), value_range=(0, 1)), "NaN or infinite", "mend the loader"),
    "values outside the range": (lambda: loaded(FLOATS * 2, value_range=(0, 1)), "outside their value_range", "clip them"),
    "no range": (lambda: loaded(FLOATS, value_range=(1, 1)), "value_range is no range", "(0, 1)"),
    "range of texts": (lambda: loaded(FLOATS, value_range=("0", "1")), "value_range is no range", "(0, 1)"),
    "complex images": (lambda: loaded(torch.zeros(N, 3, 8, 8, dtype=torch.complex64)), "images are no plain tensor", "to_dense"),
    "sparse images": (lambda: loaded(FLOATS.to_sparse()), "images are no plain tensor", "to_dense"),
    "images on another device": (lambda: loaded(IMAGES.to("meta")), "images are no plain tensor", "images.cpu()"),
    "numbers for classes": (lambda: loaded(classes=(0, 1)), "a class name is no text", "str(name)"),
    "one class": (lambda: loaded(labels=LABELS * 0, classes=("cat",)), "no names of at least two classes", "every class once"),
    "a text for classes": (lambda: loaded(classes="catdog"), "classes are no names", "in their order"),
    "a class twice": (lambda: loaded(classes=("cat", "cat")), "two classes have one name", "rename or merge"),
    "empty class name": (lambda: loaded(classes=("cat", " ")), "a class name is empty", "1 to 1000"),
    "half a character": (lambda: loaded(classes=("cat", "\udcff")), "no Unicode", "UTF-8"),
    "no licence": (lambda: loaded(licence=None), "the licence is no text", "may be done"),
    "parts of another length": (lambda: loaded(parts=LABELS[:-1]), "parts do not fit the images", "each image"),
    "unknown parts": (lambda: loaded(parts=LABELS + 5), "unknown parts", "with 0"),
    "parts without training": (lambda: loaded(parts=LABELS + 1), "no training images", "with 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_classifier_can_learn_from_is_refused_with_what_to_change(case: str) -> None:
    make, problem, fix = REFUSED[case]
    with pytest.raises(ConfigError, match=re.escape(problem)) as error:
        taken(make(), "mine:load")
    assert str(error.value).startswith("dataset 'mine:load': ")
    assert fix in str(error.value).partition("do:  ")[2]
    assert len(str(error.value)) < 1_500


def test_nan_is_told_with_the_number_of_its_image() -> None:
    with pytest.raises(ConfigError, match="given:   image 7\n"):
        taken(loaded(with_value(float("nan")), value_range=(0, 1)), "mine")


@pytest.mark.parametrize(
    ("images", "value_range"),
    [
        (IMAGES, None),
        (FLOATS, (0, 1)),
        (FLOATS.half().float(), (0, 1)),
        (FLOATS.double() * 2 - 1, (-1, 1)),
        ((IMAGES.int() * 257).to(torch.uint16), (0, 65535)),
        (IMAGES.long(), (0, 255)),
        (FLOATS.clone().requires_grad_(), (0, 1)),
    ],
    ids=["uint8", "floats", "halves", "centred", "uint16", "int64", "with a gradient"],
)
def test_images_are_scaled_by_their_stated_range(images: torch.Tensor, value_range: tuple[float, float] | None) -> None:
    found = taken(loaded(images, value_range=value_range), "mine")
    assert found.images.dtype == torch.uint8
    assert torch.equal(found.images, IMAGES)
    assert found.value_range is None


TARGETS = {
    "multi_label": (torch.eye(2)[LABELS], torch.float32),
    "regression": (torch.rand(N, 2).to(torch.bfloat16), torch.float32),
    "segmentation": (torch.zeros(N, 8, 8).long(), torch.uint8),
}


@pytest.mark.parametrize("task", TARGETS)
def test_targets_of_other_tasks_are_taken_in_the_tasks_type(task: str) -> None:
    targets, dtype = TARGETS[task]
    found = taken(loaded(labels=targets), "mine", task_named(task))
    assert (found.labels.dtype, found.labels.shape) == (dtype, targets.shape)
    with pytest.raises(ConfigError, match="dataset 'mine': targets are"):
        taken(loaded(labels=LABELS), "mine", task_named(task))


def test_class_names_may_be_any_text() -> None:
    names = ("line\nbreak, comma", "<b>\u202e" + np.str_("x"))
    assert taken(loaded(classes=list(names)), "mine").classes == names


@pytest.mark.parametrize("text", ["raise SystemExit(0)", "import sys; sys.exit()", "return None", "raise StopIteration", "open('/no/such/file')"])
def test_a_loader_that_ends_the_program_ends_in_exit_code_2(text: str, tmp_path: Path) -> None:
    (tmp_path / "my_own_loader.py").write_text(f"def load():\n    {text}\n")
    recipe = re.sub(r"data:.*", "data: {name: my_own_loader:load}", TINY.read_text())
    assert "my_own_loader" in recipe
    (tmp_path / "mine.yaml").write_text(recipe)
    command = [sys.executable, "-m", "bonsai", "run", str(tmp_path / "mine.yaml"), "--dry-run", "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "my_own_loader" in done.stderr
