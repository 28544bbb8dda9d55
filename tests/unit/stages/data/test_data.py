from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.loading import load_data
from bonsai.stages.data.registry import LOADERS, LoadedImages, source_digest
from bonsai.stages.imports.registry import resolve
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store


def digits_of(size: int) -> torch.Tensor:
    found = load_data(DataConfig(name="digits", options={"size": size}))
    assert isinstance(found, LoadedImages)
    return found.images


@pytest.mark.parametrize("name", LOADERS)
def test_every_dataset_of_the_table_can_be_imported(name: str) -> None:
    assert callable(resolve(name, LOADERS, "dataset"))


def test_the_split_is_stratified_complete_and_without_overlap(digits: Dataset) -> None:
    assert digits.sizes == {"train": 1077, "validation": 270, "test": 450}
    parts = {name: load_file(digits.folder / f"{name}.safetensors") for name in digits.sizes}
    for part in parts.values():
        shares = torch.bincount(part["labels"], minlength=10) / len(part["labels"])
        assert float((shares - 0.1).abs().max()) < 0.02
    every = torch.cat([part["images"].flatten(1) for part in parts.values()])
    assert len(every) == 1797
    assert len(torch.unique(every, dim=0)) == len(torch.unique(digits_of(16).flatten(1), dim=0))


GOLDEN_LABELS = [1, 4, 8, 6, 5, 9, 9, 1, 3, 5, 2, 2]


def test_the_split_is_the_same_on_every_machine(digits: Dataset) -> None:
    labels = load_file(digits.folder / "test.safetensors")["labels"]
    assert labels[:12].tolist() == GOLDEN_LABELS


def test_a_missing_folder_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no such folder.*given:   /nowhere/at/all.*do:      check the path"):
        load_data(DataConfig(name="image_folder", options={"root": "/nowhere/at/all"}))


def test_a_mistyped_option_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'sise'"):
        load_data(DataConfig(name="digits", options={"sise": 16}))


def test_a_missing_dataset_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no dataset of this name \(did you mean 'digits'\?\).*allowed: array, csv, digits"):
        load_data(DataConfig(name="digit"))


def image_folder(root: Path, per_class: int = 10) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def test_a_folder_of_images_becomes_a_dataset(tmp_path: Path, store: Store) -> None:
    root = image_folder(tmp_path / "images")
    data = DataConfig(name="image_folder", options={"root": str(root), "size": 24})
    made = store.run(prepare, data=data, content=source_digest(data))
    assert made.image_shape == (3, 24, 24)
    assert made.classes == ("cat", "dog")
    assert sum(made.sizes.values()) == 20


def test_a_corrupt_image_is_an_error_that_names_it(tmp_path: Path, store: Store) -> None:
    root = image_folder(tmp_path / "images")
    (root / "cat" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"(?s)1 of 21 files cannot be read as an image.*cat/broken\.png"):
        store.run(prepare, data=DataConfig(name="image_folder", options={"root": str(root)}), content="")


def test_a_changed_folder_is_another_input(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    data = DataConfig(name="image_folder", options={"root": str(root)})
    before = source_digest(data)
    (root / "cat" / "0.png").unlink()
    assert source_digest(data) != before != ""


def test_a_class_too_small_to_split_is_refused(tmp_path: Path, store: Store) -> None:
    data = DataConfig(name="image_folder", options={"root": str(image_folder(tmp_path / "images", per_class=1))})
    with pytest.raises(ConfigError, match="too small for a stratified split"):
        store.run(prepare, data=data, content="")
