"""Datasets of one's own: any map-style dataset of torch's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from given_samples import pixels
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data import storing
from bonsai.stages.data.checking import check_loaded
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.part import Part
from bonsai.stages.data.pixels import ORIENTATION
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.data.registry import LoadedDatasets, LoadedSamples
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store


class Squares(Dataset[tuple[Any, Any]]):
    """Somebody's own dataset: `make` makes a sample of its number."""

    def __init__(self, make: Any, count: int = 6, **attributes: Any) -> None:
        self._make, self._count = make, count
        self.asked: list[int] = []
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        self.asked.append(number)
        made: tuple[Any, Any] = self._make(number)
        return made


def grey(number: int) -> tuple[torch.Tensor, int]:
    return torch.full((1, 4, 4), number, dtype=torch.uint8), number % 2


def test_a_dataset_of_ones_own_is_taken() -> None:
    held = pixels(LoadedDatasets(Squares(grey), ("a", "b"), "own"))
    assert held.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert held.targets.tolist() == [0, 1, 0, 1, 0, 1]
    assert held.parts is None


def test_a_dataset_for_each_part_is_the_split() -> None:
    parts: Mapping[str, Any] = {"train": Squares(grey), "test": Squares(grey, 2)}
    held = pixels(LoadedDatasets(parts, ("a", "b"), "own"))
    assert held.parts is not None
    assert held.parts.tolist() == [0] * 6 + [2] * 2


def test_datasets_that_know_their_classes_need_no_record() -> None:
    assert pixels(Squares(grey, classes=["a", "b"])).classes == ("a", "b")
    assert pixels({"train": Squares(grey, classes=("a", "b"))}).classes == ("a", "b")


def test_targets_that_a_dataset_keeps_are_not_made_one_by_one() -> None:
    kept = Squares(grey, 100, targets=[number % 2 for number in range(100)])
    loaded = check_loaded(LoadedDatasets(kept, ("a", "b"), "own"), "mine")
    assert isinstance(loaded, LoadedSamples)
    assert loaded.targets is not None
    assert loaded.targets.tolist() == kept.targets  # type: ignore[attr-defined]
    assert len(kept.asked) < 10
    wrong = Squares(grey, 100, targets=[0] * 100)
    loaded = check_loaded(LoadedDatasets(wrong, ("a", "b"), "own"), "mine")
    assert isinstance(loaded, LoadedSamples)
    assert loaded.targets is not None
    assert loaded.targets.sum() == 50


def test_pil_images_get_the_size_that_is_stated() -> None:
    dataset = Squares(lambda number: (Image.new("RGB", (10 + number, 20), (number, 0, 0)), number % 2))
    held = pixels(LoadedDatasets(dataset, ("a", "b"), "own", preprocess=Preprocess.of((3, 8, 6))))
    assert held.images.shape == (6, 3, 8, 6)
    with pytest.raises(ConfigError, match="PIL images have no size of their own"):
        check_loaded(LoadedDatasets(dataset, ("a", "b"), "own"), "mine")


def test_the_mask_of_another_image_is_refused_and_that_of_a_turned_one_is_not() -> None:
    turned = Image.new("L", (12, 8))
    turned.getexif()[ORIENTATION] = 6

    def sample(number: int) -> tuple[Image.Image, Image.Image]:
        return (turned if number < 3 else Image.new("L", (8, 12))), Image.new("L", (4, 6) if number < odd else (6, 4))

    datasets = LoadedDatasets(Squares(sample), ("road", "tree"), "own", preprocess=Preprocess.of((1, 12, 8)))
    odd = 6
    assert pixels(datasets).targets.shape == (6, 12, 8)
    odd = 5
    with pytest.raises(ConfigError, match="sample 5: a mask of 6x4 pixels for an image of 8x12; both must have the same proportions"):
        pixels(datasets)


@pytest.mark.parametrize(
    ("value", "value_range", "kind"),
    [
        (torch.full((2, 9), 0.25), (0, 1), torch.float32),
        (np.full((2, 9), 300, np.uint16), (0, 4095), torch.uint16),
        (torch.zeros(2, 9, dtype=torch.uint8), None, torch.uint8),
    ],
    ids=["floats", "uint16", "uint8"],
)
def test_series_keep_their_kind_of_numbers(value: Any, value_range: tuple[float, float] | None, kind: torch.dtype) -> None:
    held = pixels(LoadedDatasets(Squares(lambda number: (value, number % 2)), ("a", "b"), "own", value_range))
    assert (held.images.dtype, held.images.shape) == (kind, (6, 2, 9))


REFUSED: dict[str, tuple[Any, str]] = {
    "floats without a range": (Squares(lambda number: (torch.rand(1, 4, 4), 0)), "samples are no uint8, and their range is not stated"),
    "no pair": (Squares(lambda number: torch.rand(1, 4, 4)), "a sample is (input, target)"),
    "a table": (Squares(lambda number: (torch.zeros(4, dtype=torch.uint8), 0)), "a sample is no image and no series"),
    "texts": (Squares(lambda number: (np.array([["a"]]), 0)), "a sample is no image and no series"),
    "empty": (Squares(grey, 0), "a dataset is empty"),
    "unknown part": ({"training": Squares(grey)}, "datasets name unknown parts"),
    "nothing to train on": ({"test": Squares(grey)}, "there is no dataset to train on"),
    "an iterator": (iter([grey(0)]), "a dataset is not map-style"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_datasets_that_do_not_fit_are_refused(case: str) -> None:
    datasets, told = REFUSED[case]
    with pytest.raises(ConfigError) as error:
        check_loaded(LoadedDatasets(datasets, ("a", "b"), "own"), "mine")
    assert told in str(error.value)


def test_a_sample_of_another_shape_is_named() -> None:
    odd = Squares(lambda number: (torch.zeros(1, 4, 4 + (number == 3), dtype=torch.uint8), number % 2), targets=[0, 1, 0, 1, 0, 1])
    with pytest.raises(ConfigError, match=r"(?s)a sample does not fit.*sample 3: .*\(1, 4, 5\); the network takes numbers of shape \(1, 4, 4\)"):
        pixels(LoadedDatasets(odd, ("a", "b"), "own"))


def test_a_bare_dataset_without_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="do not say which classes there are"):
        check_loaded(TensorDataset(torch.zeros(2, 1, 4, 4), torch.zeros(2)), "mine")


LOADER = """
import torch
from torch.utils.data import Dataset
from bonsai.stages.data.registry import LoadedDatasets

class Greys(Dataset):
    def __len__(self): return 40
    def __getitem__(self, i): return torch.full((1, 4, 4), i, dtype=torch.uint8), i % 2

def load(): return LoadedDatasets(Greys(), ("even", "odd"), "own")
"""


def test_samples_of_ones_own_dataset_are_made_when_they_are_needed(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greys_of_mine.py").write_text(LOADER)
    monkeypatch.syspath_prepend(tmp_path)
    data = DataConfig(name="greys_of_mine:load")
    small = store.run(prepare, data=data, content="")
    monkeypatch.setattr(storing, "MOST_BYTES", 0)
    index = Store(tmp_path / "other").run(prepare, data=data, content="")
    assert (small.stored, index.stored) == ("pixels", "index")
    for one, other in zip(Part(index, "test").batches(3), Part(small, "test").batches(3), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
