"""The ways to bring data beside a folder of classes: a table, arrays, torchvision's sets, and datasets of one's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset
from torchvision.datasets import CIFAR10

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data import storing
from bonsai.stages.data.arrays import load_array
from bonsai.stages.data.checking import check_loaded
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.csv_table import load_csv
from bonsai.stages.data.dataset import Dataset as Prepared
from bonsai.stages.data.files import Files
from bonsai.stages.data.image_folder import load_image_folder
from bonsai.stages.data.part import Part
from bonsai.stages.data.pixels import read_image, read_mask
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.data.registry import LoadedDatasets, LoadedSamples, source_digest
from bonsai.stages.data.storing import Index, Pixels, hold
from bonsai.stages.data.torchvision_dataset import load_torchvision_dataset
from bonsai.stages.delivery.predict.samples import Columns, read_table
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store


def picture(file: Path, colour: int, mode: str = "L", size: tuple[int, int] = (6, 4)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (colour,) * 3 if mode == "RGB" else colour).save(file)


def pixels(loaded: object) -> Pixels:
    checked = check_loaded(loaded, "mine")
    held = hold(checked)
    assert isinstance(held, Pixels)
    return held


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


def masked(folder: Path, *, most_bytes: int, monkeypatch: pytest.MonkeyPatch, count: int = 40) -> Prepared:
    """Prepare images with masks of two classes; what lies there already stays."""
    for number in range(count):
        for place, colour in (("images", number), ("masks", number % 2)):
            if not (folder / place / f"{number}.png").exists():
                picture(folder / place / f"{number}.png", colour)
    rows = [f"images/{number}.png,masks/{number}.png" for number in range(count)]
    (folder / "labels.csv").write_text("\n".join(["path,mask", *rows]))
    data = DataConfig(name="csv", options={"root": str(folder), "mask": "mask", "classes": ["road", "tree"], "size": [4, 6], "channels": 1})
    monkeypatch.setattr(storing, "MOST_BYTES", most_bytes)
    return Store(folder.parent / "store").run(prepare, data=data, content=source_digest(data), task="segmentation")


@pytest.mark.parametrize("most_bytes", [0, 10**6])
@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (Image.new("L", (6, 4), 7), "masks name classes that are not there"),
        (Image.new("RGB", (6, 4)), "a mask of mode RGB"),
        (Image.new("L", (4, 6)), "a mask of 4x6 pixels for an image of 6x4; both must have the same proportions"),
    ],
    ids=["value", "colours", "proportions"],
)
def test_every_mask_is_checked_before_training(mask: Image.Image, told: str, most_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set" / "masks").mkdir(parents=True)
    for number in (23, 38):
        mask.save(tmp_path / "set" / "masks" / f"{number}.png")
    with pytest.raises(ConfigError, match=f"(?s)dataset 'csv'.*{told}|2 of 40 files.*{told}") as refusal:
        masked(tmp_path / "set", most_bytes=most_bytes, monkeypatch=monkeypatch)
    if not most_bytes:
        assert "2 of 40 samples cannot be used: images/23.png, images/38.png. The first: " in str(refusal.value)


def test_a_mask_may_be_smaller_than_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "set" / "masks" / "5.png", 1, size=(3, 2))
    turned = Image.new("L", (4, 6))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "set" / "masks" / "6.png", exif=turned.getexif())
    assert masked(tmp_path / "set", most_bytes=0, monkeypatch=monkeypatch).stored == "index"


def test_every_image_of_a_large_set_is_read_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masked(tmp_path / "set", most_bytes=0, monkeypatch=monkeypatch)
    whole = (tmp_path / "set" / "images" / "39.png").read_bytes()
    (tmp_path / "set" / "images" / "39.png").write_bytes(whole[:-25])  # its head is intact
    with pytest.raises(ConfigError, match=r"(?s)1 of 40 samples cannot be used: images/39\.png\. The first: a sample cannot be read"):
        masked(tmp_path / "set", most_bytes=0, monkeypatch=monkeypatch)


def test_every_array_of_a_large_set_is_checked_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = np.zeros((40, 1, 8), np.float32)
    inputs[31, 0, 3] = np.nan
    np.savez(tmp_path / "a.npz", inputs=inputs, targets=np.arange(40) % 2)
    data = DataConfig(name="array", options={"root": str(tmp_path / "a.npz"), "classes": ["x", "y"], "scale": [-1, 1]})
    monkeypatch.setattr(storing, "MOST_BYTES", 0)
    with pytest.raises(ConfigError, match=r"(?s)1 of 40 samples cannot be used: sample 31.*values from nan to nan"):
        Store(tmp_path / "store").run(prepare, data=data, content=source_digest(data))


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
    turned.getexif()[0x0112] = 6

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
