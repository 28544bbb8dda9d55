"""Sets that are too large to keep: an index in the store, samples made whenever they are needed, and the same figures as from pixels."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data import storing
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.data.registry import source_digest
from bonsai.stages.data.source import IndexedSamples, open_part
from bonsai.stages.imports.declared import FOLDERS
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.artifact import fingerprint
from bonsai.stages.store.store import Store, load_artifact
from bonsai.stages.training.batches import Batches, load_split
from bonsai.stages.training.config import AugmentConfig, TrainConfig

TRAINING = TrainConfig(batch_size=8, augment=AugmentConfig(rotate=10), workers=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dög"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def data(folder: Path) -> DataConfig:
    return DataConfig(name="image_folder", options={"root": str(folder), "size": [8, 6]})


def prepared(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch, *, most_bytes: int = 0) -> Dataset:
    monkeypatch.setattr(storing, "MOST_BYTES", most_bytes)
    return Store(store).run(prepare, data=data(folder), content=source_digest(data(folder)))


def test_a_large_set_is_kept_as_an_index(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepared(folder, tmp_path / "store", monkeypatch)
    assert (made.stored, made.image_shape, made.sizes) == ("index", (3, 8, 6), {"train": 24, "validation": 6, "test": 10})
    assert sum(file.stat().st_size for file in made.folder.glob("*.safetensors")) < 4_000
    assert isinstance(open_part(made, "train"), IndexedSamples)


def test_an_index_gives_what_pixels_give(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = prepared(folder, tmp_path / "a", monkeypatch)
    pixels = prepared(folder, tmp_path / "b", monkeypatch, most_bytes=10**6)
    assert pixels.stored == "pixels"
    for part in ("train", "validation", "test"):
        assert all(torch.equal(one, other) for one, other in zip(load_split(index, part), load_split(pixels, part), strict=True))
        assert np.array_equal(np.concatenate(list(Part(index, part).one_by_one())), load_split(pixels, part)[0].numpy())
        assert np.array_equal(Part(index, part).targets[:], Part(pixels, part).targets[:])
        assert torch.equal(Part(index, part).some(), Part(pixels, part).some())
        assert np.array_equal(Part(index, part).first(3), Part(pixels, part).first(3))
    for step in (0, 4):
        ours, theirs = (Batches(open_part(made, "train"), TRAINING).batch(step) for made in (index, pixels))
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_workers_make_the_same_batches(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_part(prepared(folder, tmp_path / "store", monkeypatch), "train")
    alone, loaded = Batches(source, TRAINING), Batches(source, TRAINING.model_copy(update={"workers": 2}))
    for step in range(4):
        assert all(torch.equal(one, other) for one, other in zip(alone.batch(step), loaded.batch(step), strict=True))


def test_where_the_files_lie_is_no_part_of_the_dataset(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepared(folder, tmp_path / "a", monkeypatch)
    moved = folder.rename(tmp_path / "moved")
    after = prepared(moved, tmp_path / "b", monkeypatch)
    assert fingerprint(before) == fingerprint(after)
    assert Part(before, "test").first(2).shape == (2, 3, 8, 6)  # the files are found where the recipe says now


def test_files_that_nobody_has_named_are_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepared(folder, tmp_path / "store", monkeypatch)
    assert load_artifact(Dataset, made.folder) == made
    monkeypatch.delenv(FOLDERS)
    with pytest.raises(ConfigError, match=r"(?s)data\.options\.root: the dataset's files are not there.*run the recipe that names them"):
        Part(made, "test")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_changed_since_is_named(workers: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepared(folder, tmp_path / "store", monkeypatch)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no image")
    batches = Batches(open_part(made, "train"), TrainConfig(batch_size=8, workers=workers))
    with pytest.raises(ConfigError, match=r"(?s)^dataset 'image_folder': a sample cannot be made any more\n.*another size than when it was found.*\.png"):
        batches.batch(0)


def test_a_file_that_is_no_image_is_named_before_training(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"(?s)1 of 40 files cannot be read as an image.*cat/0\.png"):
        prepared(folder, tmp_path / "store", monkeypatch)


def test_the_digest_of_a_part_is_that_of_its_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prepared(folder, tmp_path / "a", monkeypatch)
    assert Part(before, "test").digest == before.contents["test"] != before.contents["train"]
    index = open_part(before, "test")
    assert isinstance(index, IndexedSamples)
    changed = folder / index._samples.paths[0]  # type: ignore[attr-defined]
    os.utime(changed, (1, 1))
    assert prepared(folder, tmp_path / "b", monkeypatch).contents == before.contents
    Image.new("RGB", (12, 10)).save(changed)
    after = prepared(folder, tmp_path / "c", monkeypatch)
    assert after.contents["test"] != before.contents["test"]
    assert after.contents["train"] == before.contents["train"]


def test_as_many_inputs_are_taken_as_fit_into_memory(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(prepared(folder, tmp_path / "store", monkeypatch), "train")
    monkeypatch.setattr("bonsai.stages.data.part.MOST_BYTES", 5 * 3 * 8 * 6 * 4)
    whole = torch.cat([inputs for inputs, _ in part.batches(7)])
    assert torch.equal(part.some(), whole[[0, 6, 12, 17, 23]])
