"""What `bonsai init` writes for a folder of images and masks, and what it refuses."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.starting.networks import SEGMENTER
from bonsai.pipeline.starting.pairs import find_pairs
from bonsai.pipeline.starting.samples import look_at
from bonsai.pipeline.starting.scaffold import Ask, Written, scaffold
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.data.loading import load_data
from bonsai.stages.imports.registry import CODE_PATH
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network


@pytest.fixture(autouse=True)
def path_and_modules_as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(CODE_PATH, "")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def draw(images: Path, masks: Path, count: int = 48, *, size: tuple[int, int] = (40, 40), values: tuple[int, ...] = (0, 1, 2), mark: str = "") -> None:
    """Draw images of a width and a height, with masks of these values."""
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        mask = np.resize(np.repeat(values, 7), size[::-1]).astype(np.uint8)
        Image.new("RGB", size, (number, 0, 0)).save(images / f"{number}.jpg")
        Image.fromarray(mask).save(masks / f"{number}{mark}.png")


def written_for(root: Path, **asked: object) -> Written:
    return scaffold(Ask(Path("mine.yaml"), root, **asked))  # type: ignore[arg-type]


def text(written: Written) -> str:
    return "\n".join(written.lines)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_images_beside_masks_become_a_recipe_that_loads_them(tmp_path: Path) -> None:
    draw(tmp_path / "set" / "images", tmp_path / "set" / "masks", values=(0, 1, 2, 255))
    written = written_for(Path("set"))
    assert [file.as_posix() for file in written.files] == ["mine.yaml", "mine-device.yaml", "set/masks.csv", "my_model.py"]
    recipe = load_recipe("mine.yaml")
    assert (recipe.task, recipe.data.name, recipe.training.balance) == ("segmentation", "csv", "none")
    assert recipe.data.options["classes"] == ("class-0", "class-1", "class-2")
    assert load_profile(recipe.profile).gates.max_drop == 0.29  # of 12 test images
    assert "48 images with masks: class-0 25.2 %, class-1 24.9 %, class-2 24.9 % of the pixels; 28 for train, 8 for validation, 12 for test" in text(written)
    assert "255 does not count, neither in the loss nor in the metric: 24.9 % of the pixels, in 48 masks" in text(written)
    loaded = load_data(recipe.data)
    image, mask = loaded.samples[3]
    assert (image.shape, mask.shape, set(np.unique(mask))) == ((3, 32, 32), (32, 32), {0, 1, 2, 255})


@pytest.mark.parametrize("layout", ["{part}/{kind}", "{kind}/{part}", "{kind}/{part}/town"])
def test_parts_are_kept(layout: str, tmp_path: Path) -> None:
    for part, count in (("train", 40), ("val", 10), ("test", 20)):
        draw(*(tmp_path / "set" / layout.format(part=part, kind=kind) for kind in ("images", "masks")), count)
    written = written_for(Path("set"))
    assert "40 for train, 10 for validation, 20 for test" in text(written)
    recipe = load_recipe("mine.yaml")
    assert [row["split"] for row in rows(Path("set/masks.csv"))].count("val") == 10
    assert recipe.data.options["split"] == "split"
    parts = load_data(recipe.data).parts
    assert parts is not None
    assert np.bincount(parts).tolist() == [40, 10, 20]


def test_folders_of_other_names_can_be_named(tmp_path: Path) -> None:
    draw(tmp_path / "set" / "JPEGImages", tmp_path / "set" / "SegmentationClass", mark="_mask")
    (tmp_path / "project").mkdir()
    scaffold(Ask(Path("project/mine.yaml"), Path("set/JPEGImages"), masks=tmp_path / "set" / "SegmentationClass"))
    assert rows(Path("set/masks.csv"))[0] == {"path": "JPEGImages/0.jpg", "mask": "SegmentationClass/0_mask.png"}
    recipe = load_recipe("project/mine.yaml")
    assert Path(str(recipe.data.options["root"])).resolve() == tmp_path / "set"
    assert len(load_data(recipe.data).samples) == 48


def test_masks_may_lie_below_their_images(tmp_path: Path) -> None:
    draw(tmp_path / "set", tmp_path / "set" / "gt")
    found = find_pairs(Path("set"), Path("set/gt"))
    assert found is not None
    assert (found.root, len(found.pairs), found.images, found.masks) == (Path("set"), 48, (), ())


def test_the_nearest_folder_that_holds_both_is_the_root(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "photos", tmp_path / "b" / "masks", count=2)
    found = [find_pairs(Path(data), Path(masks)) for data, masks in (("a/photos", "b/masks"), ("./a/photos", str(tmp_path / "b" / "masks")))]
    assert [place.root.resolve() for place in found if place] == [tmp_path, tmp_path]


def test_what_does_not_pair_is_left_out_and_told(tmp_path: Path) -> None:
    draw(tmp_path / "set" / "train" / "images", tmp_path / "set" / "train" / "masks")
    draw(tmp_path / "set" / "test" / "images", tmp_path / "other", count=3)
    (tmp_path / "set" / "train" / "masks" / "0.png").unlink()
    (tmp_path / "set" / "train" / "images" / "1.jpg").unlink()
    told = text(written_for(Path("set")))
    assert "warning: 4 images have no mask of their name and are left out: set/test/images/0.jpg, set/test/images/1.jpg, set/test/images/2.jpg and 1 m" in told
    assert "warning: 1 masks have no image of their name and are left out: set/train/masks/1.png" in told
    assert len(rows(Path("set/masks.csv"))) == 46


def test_a_height_and_a_width_can_be_asked_for(tmp_path: Path) -> None:
    draw(tmp_path / "set" / "images", tmp_path / "set" / "masks", size=(120, 80))
    written_for(Path("set"), size=(24, 36))
    assert load_recipe("mine.yaml").data.options["size"] == (24, 36)


@pytest.mark.parametrize(
    ("sizes", "fitting"),
    [
        ([(120, 80)], (64, 96)),
        ([(80, 120)], (96, 64)),
        ([(50, 40), (100, 80)], (48, 64)),
        ([(40, 40), (20, 20)], (32, 32)),
        ([(120, 80), (80, 80)], (64, 64)),
        ([(9, 9)], (32, 32)),
    ],
)
def test_images_of_one_shape_keep_it(sizes: list[tuple[int, int]], fitting: tuple[int, int], tmp_path: Path) -> None:
    for number, size in enumerate(sizes):
        Image.new("L", size).save(tmp_path / f"{number}.png")
    seen = look_at(sorted(tmp_path.glob("*.png")))
    assert (seen.size, seen.channels) == (fitting, 1)


def test_rare_classes_are_told_and_count_more(tmp_path: Path) -> None:
    draw(tmp_path / "set" / "images", tmp_path / "set" / "masks", values=(0,))
    for number in range(9):
        Image.fromarray(np.eye(40, dtype=np.uint8) * 3).save(f"set/masks/{number}.png")
        Image.fromarray(np.eye(40, dtype=np.uint8)).save(f"set/masks/{number + 10}.png")
    told = text(written_for(Path("set")))
    assert "warning: class-3 is in 9 masks; a network learns little from fewer than 20" in told
    assert "warning: no mask holds 2, and the network gets an output for it" in told
    assert load_recipe("mine.yaml").training.balance == "weights"


def test_trained_weights_of_a_segmenter_are_fine_tuned(tmp_path: Path) -> None:
    draw(tmp_path / "set" / "images", tmp_path / "set" / "masks", values=(0, 0, 0, 0, 0, 0, 1, 2))
    (tmp_path / "my_net.py").write_text(SEGMENTER)
    sys.path.append(str(tmp_path))
    for classes in (3, 5):
        network = build_network(ModelConfig(name="my_net:build", seed=3), (3, 40, 40), classes)
        torch.save({"state_dict": network.state_dict()}, f"{classes}.pth")
    written_for(Path("set"), model="my_net:build", weights="3.pth")
    recipe = load_recipe("mine.yaml")
    assert (recipe.task, recipe.training.reference, recipe.training.balance) == ("segmentation", "given", "none")
    assert recipe.data.options["size"] == 40
    assert "# mean: [0.485" in Path("mine.yaml").read_text()
    told = text(written_for(Path("set"), model="my_net:build", weights="5.pth", force=True))
    assert "the weights are for other classes than these 3: head begins with random ones; if they have more classes than your masks hold, name all" in told
    assert load_recipe("mine.yaml").training.reference == "trained"


def test_a_table_that_is_there_is_replaced_only_if_asked(tmp_path: Path) -> None:
    draw(tmp_path / "set" / "images", tmp_path / "set" / "masks")
    written_for(Path("set"))
    assert "set/masks.csv" not in [str(file) for file in scaffold(Ask(Path("second.yaml"), Path("set"))).files]  # as it would be written
    Path("set/masks.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"(?s)a file is there already.*set/masks\.csv.*--force"):
        scaffold(Ask(Path("third.yaml"), Path("set")))
    assert not Path("third.yaml").exists()
    written_for(Path("set"), force=True)
    assert len(rows(Path("set/masks.csv"))) == 48


def test_a_network_for_classes_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    draw(tmp_path / "set" / "images", tmp_path / "set" / "masks")
    with pytest.raises(ConfigError, match="a map of logits for each class"):
        written_for(Path("set"), model="resnet8")
    assert not list(tmp_path.glob("*.yaml"))
    assert not Path("set/masks.csv").exists()


def repaint(values: tuple[int, ...]) -> None:
    draw(Path("set/images"), Path("set/masks"), values=values)


def colours() -> None:
    repaint((0, 1))
    Image.new("RGB", (40, 40)).save("set/masks/3.png")


def turned() -> None:
    repaint((0, 1))
    Image.new("L", (40, 90)).save("set/masks/3.png")


def broken() -> None:
    repaint((0, 1))
    Path("set/masks/3.png").write_bytes(b"")


def renamed() -> None:
    repaint((0, 1))
    for mask in Path("set/masks").iterdir():
        mask.rename(mask.with_name(f"m{mask.name}"))


def doubled() -> None:
    repaint((0, 1))
    Image.new("RGB", (40, 40)).save("set/images/3.png")


def two_of_masks() -> None:
    repaint((0, 1))
    draw(Path("other"), Path("set/labels"))


def half_split() -> None:
    repaint((0, 1))
    draw(Path("set/images/train"), Path("set/masks/train"))


def only_test() -> None:
    draw(Path("set/images/test"), Path("set/masks/test"))


REFUSED = {
    "colours": (colours, r"1 of 48 files cannot be read.*3\.png \(a mask of mode RGB; a mask has one channel"),
    "of another image": (turned, r"3\.png \(a mask of 40x90 pixels for an image of 40x40"),
    "broken": (broken, r"1 of 48 files cannot be read.*set/masks/3\.png"),
    "black and white": (lambda: repaint((0, 255)), r"the masks hold fewer than two classes.*the values 0, 255.*write 1 where your masks have 255"),
    "one class": (lambda: repaint((1,)), r"the masks hold fewer than two classes.*the values 1\n.*give the background a number"),
    "gaps": (lambda: repaint((0, 64, 128, 255)), r"the values of the masks leave gaps.*0, 64, 128, 255.*number the 3 classes from 0 to 2"),
    "no pairs": (renamed, r"no image has a mask of its name.*48 images \(set/images/0\.jpg.*48 masks \(set/masks/m0\.png"),
    "a name twice": (doubled, r"two files have one name.*3\.jpg and set/images/3\.png"),
    "two folders": (two_of_masks, r"several folders may hold the images or the masks.*set/images, set/labels, set/masks.*--data IMAGES --masks MASKS"),
    "parts of some": (half_split, r"some images lie in train, val or test, and others do not.*set/images/0\.jpg"),
    "no training": (only_test, r"there are no images to train on.*put images into train/"),
    "too few": (lambda: draw(Path("set/images"), Path("set/masks"), count=2), r"the dataset is too small for a split"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_images_and_masks_that_cannot_be_used_are_refused(case: str, tmp_path: Path) -> None:
    make, problem = REFUSED[case]
    make()
    with pytest.raises(ConfigError, match=f"(?s){problem}"):
        written_for(Path("set"))
    assert not list(tmp_path.glob("*.*"))


@pytest.mark.parametrize(
    ("data", "masks", "problem"),
    [("nowhere", "set/masks", "--data: no such folder"), ("set/images", "nowhere", "--masks: no such folder"), ("set/images", "set/.m", "is hidden")],
)
def test_folders_that_are_not_there_are_refused(data: str, masks: str, problem: str, tmp_path: Path) -> None:
    draw(tmp_path / "set" / "images", tmp_path / "set" / "masks", count=2)
    draw(tmp_path / "other", tmp_path / "set" / ".m", count=2)
    with pytest.raises(ConfigError, match=problem):
        find_pairs(Path(data), Path(masks))


def test_a_folder_of_classes_has_no_pairs(tmp_path: Path) -> None:
    for name in ("images", "cat"):
        (tmp_path / "set" / name).mkdir(parents=True)
    assert find_pairs(Path("set"), None) is None
    assert find_pairs(Path("nowhere"), None) is None


def test_the_tables_root_must_be_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "set" / "images", tmp_path / "set" / "masks")
    monkeypatch.setattr("bonsai.pipeline.starting.scaffold.os.access", lambda place, _mode: Path(place) != Path("set"))
    with pytest.raises(ConfigError, match=r"(?s)files cannot be written there.*given:   set"):
        written_for(Path("set"))
