"""Folders as they come from strangers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.image_folder import load_image_folder, scan_folder
from bonsai.stages.data.storing import Pixels, hold
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store

RED = (255, 0, 0)


def put(file: Path, image: Image.Image | None = None, **how: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (12, 10), RED)).save(file, **how)
    return file


def pixels(root: Path, **options: object) -> np.ndarray:
    held = hold(load_image_folder(root=str(root), **options))  # type: ignore[arg-type]
    assert isinstance(held, Pixels)
    return held.images.numpy()


def classes(root: Path, *names: str, count: int = 10) -> Path:
    for name in names:
        for number in range(count):
            put(root / name / f"{number}.png")
    return root


def test_nested_folders_and_any_case_of_the_suffix_count_but_no_hidden_files(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog", count=1)
    put(tmp_path / "cat" / "more" / "deep.JPG")
    put(tmp_path / "cat" / ".hidden" / "no.png")
    put(tmp_path / "dog" / "._1.png")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    found = scan_folder(tmp_path)
    assert found.counts() == {"cat": 2, "dog": 1}
    assert [file.name for file in found.others] == ["notes.txt"]


def test_every_broken_file_is_named(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog", count=2)
    whole = put(tmp_path / "cat" / "half.jpg").read_bytes()
    (tmp_path / "cat" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dog" / "text.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"(?s)2 of 6 files cannot be read as an image.*half\.jpg.*text\.png"):
        pixels(tmp_path, size=8)


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog", count=2)
    (tmp_path / "emu").mkdir()
    with pytest.raises(ConfigError, match=r"(?s)a class without images.*given:   emu"):
        scan_folder(tmp_path)


def test_folders_of_parts_are_the_split(tmp_path: Path, store: Store) -> None:
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        classes(tmp_path / "images" / part, "cat", "dog", count=count)
    made = store.run(prepare, data=DataConfig(name="image_folder", options={"root": str(tmp_path / "images"), "size": 8}), content="")
    assert made.sizes == {"train": 12, "validation": 4, "test": 6}
    assert made.classes == ("cat", "dog")


def test_a_part_that_is_missing_is_drawn_from_the_training_images(tmp_path: Path, store: Store) -> None:
    for part, count in (("Train", 10), ("test", 3)):
        classes(tmp_path / "images" / part, "cat", "dog", count=count)
    made = store.run(prepare, data=DataConfig(name="image_folder", options={"root": str(tmp_path / "images"), "size": 8}, validation=0.2), content="")
    assert made.sizes == {"train": 16, "validation": 4, "test": 6}


def test_a_class_that_one_part_lacks_is_refused(tmp_path: Path) -> None:
    classes(tmp_path / "train", "cat", "dog", count=2)
    classes(tmp_path / "val", "cat", count=2)
    with pytest.raises(ConfigError, match=r"(?s)a class without images in val/.*given:   dog"):
        scan_folder(tmp_path)


def test_two_folders_of_one_part_are_refused(tmp_path: Path) -> None:
    for part in ("train", "val", "valid"):
        classes(tmp_path / part, "cat", "dog", count=1)
    with pytest.raises(ConfigError, match="one part is there twice"):
        scan_folder(tmp_path)


@pytest.mark.parametrize(("share", "told"), [(0.25, "the smallest classes: emu 1, cat 30, dog 30"), (0.05, r"emu \(2 images, none for test\)")])
def test_a_class_of_too_few_images_for_every_part_is_named(share: float, told: str, tmp_path: Path, store: Store) -> None:
    classes(tmp_path / "images", "cat", "dog", count=40)
    classes(tmp_path / "images", "emu", count=2)
    data = DataConfig(name="image_folder", options={"root": str(tmp_path / "images"), "size": 8}, validation=0.05, test=share)
    with pytest.raises(ConfigError, match=rf"(?s)too small for a stratified split.*{told}"):
        store.run(prepare, data=data, content="")


def test_where_the_folder_lies_is_no_part_of_the_input(tmp_path: Path) -> None:
    here, there = (DataConfig(name="image_folder", options={"root": str(classes(tmp_path / name, "cat"))}) for name in ("a", "b"))
    assert here.identity() == there.identity()
    assert here.identity() != DataConfig(name="image_folder", options={"root": str(tmp_path / "gone")}).identity()


def deep(root: Path, values: np.ndarray, *names: str, count: int = 2) -> Path:
    for name in names:
        for number in range(count):
            put(root / name / f"{number}.tiff", Image.fromarray(values))
    return root


def ramp(most: float, kind: type) -> np.ndarray:
    return np.linspace(0, most, 256).reshape(16, 16).astype(kind)


@pytest.mark.parametrize(
    ("most", "kind", "white"), [(1023, np.uint16, 1023), (4000, np.uint16, 4095), (65535, np.uint16, 65535), (70000, np.int32, 2**24 - 1), (1, np.float32, 1)]
)
def test_images_of_more_than_8_bits_keep_their_shades(most: float, kind: type, white: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = pixels(deep(tmp_path, ramp(most, kind), "cat", "dog"), size=16, channels=1)
    assert found.min() == 0
    assert found.max() == int(255 * most / white)
    assert len(np.unique(found)) >= 250 * most / white
    assert f"{white:g} is white" in caplog.text


def test_a_dark_image_stays_dark_beside_a_bright_one(tmp_path: Path) -> None:
    deep(tmp_path, ramp(500, np.uint16), "dark")
    deep(tmp_path, ramp(4095, np.uint16), "light")
    assert pixels(tmp_path, size=16, channels=1).max((1, 2, 3)).tolist() == [31, 31, 255, 255]


def test_the_recipe_can_state_what_is_white(tmp_path: Path) -> None:
    root = deep(tmp_path, ramp(255, np.float32), "cat", "dog")
    assert pixels(root, size=16, channels=1, white=510).max() == 127


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (ramp(255, np.float32), r"images of fractions: which value stands for white cannot be told\n  given:   0 in .* to 255 in"),
        (ramp(1, np.float32) - 0.5, "which value stands for white cannot be told"),
        (ramp(1, np.float32) * np.float32("nan"), r"NaN or infinite values"),
        (-ramp(9, np.int32), "which value stands for white cannot be told"),
    ],
    ids=["floats to 255", "negative floats", "NaN", "negative integers"],
)
def test_images_of_which_white_cannot_be_told_are_refused(values: np.ndarray, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        pixels(deep(tmp_path, values, "cat", "dog"), size=16, channels=1)


def test_values_above_the_stated_white_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed: 0 to 1023"):
        load_image_folder(root=str(deep(tmp_path, ramp(4095, np.uint16), "cat", "dog")), size=16, channels=1, white=1023)


def test_an_impossible_white_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.options\.white: no such value"):
        load_image_folder(root=str(classes(tmp_path, "cat", "dog")), white=-1)
