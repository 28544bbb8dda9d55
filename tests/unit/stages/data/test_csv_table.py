"""Tables that list samples: the class, the figures or the mask of each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from given_samples import picture, pixels

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data import storing
from bonsai.stages.data.csv_table import load_csv
from bonsai.stages.data.files import Files
from bonsai.stages.data.pixels import read_image, read_mask
from bonsai.stages.data.registry import LoadedSamples
from bonsai.stages.data.storing import Index, hold
from bonsai.stages.delivery.predict.samples import Columns, read_table


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A folder with four grey images, masks of them, series, and the table of all."""
    lines = ["path;label;red;round;mask;series;split"]
    for number, (label, split) in enumerate((("b", "train"), ("a", "val"), ("b", "train"), ("a", "TEST"))):
        picture(tmp_path / "images" / f"{number}.png", 10 * number)
        picture(tmp_path / "masks" / f"{number}.png", number % 2)
        np.save(tmp_path / f"{number}.npy", np.full((2, 5), number, np.float32))
        lines.append(f"images/{number}.png;{label};{number % 2};{number / 4};masks/{number}.png;{number}.npy;{split}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def read(table: Path, **options: Any) -> LoadedSamples:
    return load_csv(root=str(table), delimiter=";", **options)


def test_a_table_names_the_class_of_each_image(table: Path) -> None:
    loaded = read(table, size=[4, 6], channels=1)
    assert loaded.classes == ("a", "b")
    assert loaded.parts is None
    held = pixels(loaded)
    assert held.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30]
    assert held.targets.tolist() == [1, 0, 1, 0]


def test_a_table_may_name_the_order_of_classes_and_the_parts(table: Path) -> None:
    loaded = read(table, classes=["b", "a"], split="split")
    assert loaded.classes == ("b", "a")
    assert loaded.targets is not None
    assert loaded.parts is not None
    assert (loaded.targets.tolist(), loaded.parts.tolist()) == ([0, 1, 0, 1], [0, 1, 0, 2])


def test_a_table_has_figures_in_several_columns(table: Path) -> None:
    loaded = read(table, targets=["red", "round"])
    assert loaded.classes == ("red", "round")
    assert loaded.targets is not None
    assert loaded.targets.dtype == np.float32
    assert loaded.targets.tolist() == [[0, 0], [1, 0.25], [0, 0.5], [1, 0.75]]


def test_a_table_has_masks(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = read(table, mask="mask", classes=["road", "tree"], size=[4, 6])
    assert pixels(loaded).targets[:, 0, 0].tolist() == [0, 1, 0, 1]
    monkeypatch.setattr(storing, "MOST_BYTES", 0)
    index = hold(loaded)
    assert isinstance(index, Index)
    assert index.targets is None
    assert {"mask_paths", "mask_ends"} < index.tensors(np.array([1, 2]), None).keys()


def test_a_table_has_series_in_files_of_arrays(table: Path) -> None:
    held = pixels(read(table, path="series", size=[5], channels=2, scale=[0, 4]))
    assert held.images.shape == (4, 2, 5)
    assert held.images.dtype == torch.float32
    assert held.preprocess.image_shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"label": "lable"}, r"no such column \(did you mean 'label'\?\)"),
        ({"file": "other.csv"}, "no such table"),
        ({"targets": ["label"]}, "a target is no number.*'b' in column 'label', line 2"),
        ({"label": "label", "mask": "mask"}, "more than one kind of target"),
        ({"classes": ["a"]}, "labels that data.options.classes lacks"),
        ({"split": "label"}, "names unknown parts"),
        ({"path": "label"}, "lists files that are not there"),
        ({"channels": 5}, "channels 1, 3 or 4"),
        ({"size": [4, 6, 8]}, "no such images"),
        ({"crop": 2}, "no such images"),
    ],
    ids=str,
)
def test_a_table_that_does_not_fit_is_refused(options: dict[str, Any], told: str, table: Path) -> None:
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        read(table, **options)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/secret.png", ".hidden/0.png"])
def test_a_table_leads_to_nothing_outside_of_its_folder(path: str, table: Path) -> None:
    (table / "labels.csv").write_text(f"path,label\n{path},a\n")
    with pytest.raises(ConfigError, match="leads out of its folder"):
        load_csv(root=str(table))


def test_paths_start_from_the_folder_of_the_table_in_training_and_in_a_package(tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / "lists" / "near" / f"{number}.png", 10 + number)
        picture(tmp_path / "far" / f"{number}.png", number)
    table = tmp_path / "lists" / "all.csv"
    absolute = tmp_path / "lists" / "near" / "1.png"
    table.write_text(f"path,mask\n near/0.png ,../far/0.png\n{absolute}, ../far/1.png\n", encoding="utf-8")
    files = load_csv(root=str(tmp_path), file="lists/all.csv", mask="mask", classes=["road", "tree"], size=[4, 6], channels=1).samples
    assert isinstance(files, Files)
    assert [files.paths[number] for number in range(2)] == ["lists/near/0.png", "lists/near/1.png"]
    for number, sample in enumerate(read_table(table, Columns())):
        image, mask = files[number]
        assert (image[0, 0, 0], mask[0, 0]) == (10 + number, number)
        assert np.array_equal(read_image(sample.path, files.preprocess), image)
        assert np.array_equal(read_mask(sample.cells["mask"], files.preprocess), mask)


@pytest.mark.parametrize("file", ["../labels.csv", ".hidden/labels.csv"])
def test_a_table_lies_below_its_root_since_only_that_is_part_of_the_input(file: str, table: Path) -> None:
    place = table / "images" / file
    place.parent.mkdir(exist_ok=True)
    place.write_text("path,label\n0.png,a\n")
    with pytest.raises(ConfigError, match="the table lies outside of its root"):
        load_csv(root=str(table / "images"), file=file)
