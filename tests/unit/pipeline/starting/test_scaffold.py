"""What `bonsai init` and `bonsai import` write for the images and the network of a stranger."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.starting.foreign import read_pruning_config
from bonsai.pipeline.starting.gates import ALIKE
from bonsai.pipeline.starting.networks import CLASSIFIER
from bonsai.pipeline.starting.scaffold import Ask, Written, scaffold
from bonsai.profiles.errors import ConfigError
from bonsai.profiles.loader import load_profile
from bonsai.stages.imports.registry import CODE_PATH
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.tasks.intervals import least_provable_drop
from bonsai.stages.training.config import DistillConfig


@pytest.fixture(autouse=True)
def path_and_modules_as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(CODE_PATH, "")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small gain nothing by two
    yield
    torch.set_num_threads(threads)
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", "RGB", 40)


def make_images(root: Path, mode: str, side: int, count: int = 40, names: Sequence[str] = ("cat", "dog")) -> Path:
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new(mode, (side + 10, side)).save(root / name / f"{number}.png")
    return root


def write_model(place: Path, name: str = "my_net") -> str:
    (place / f"{name}.py").write_text(CLASSIFIER)
    return f"{name}:build"


def text(written: Written) -> str:
    return "\n".join(written.lines)


def test_recipe_target_and_network_fit_together(images: Path, tmp_path: Path) -> None:
    written = scaffold(Ask(tmp_path / "new" / "project", images))
    assert [file.name for file in written.files] == ["my-recipe.yaml", "my-device.yaml", "my_model.py"]
    recipe = load_recipe(str(written.files[0]))
    profile = load_profile(recipe.profile)
    assert (recipe.data.options["size"], recipe.data.options["channels"]) == (32, 3)
    assert recipe.training.epochs * (48 // recipe.training.batch_size) >= 100
    assert (profile.name, profile.target.device.name) == ("my-device", "host")
    assert profile.gates.max_drop >= least_provable_drop(20, ALIKE)
    assert "80 images: cat 40, dog 40; 48 for train, 12 for validation, 20 for test" in text(written)
    assert "warning: the accuracy gate is 0.2, because 20 test images cannot prove much less" in text(written)


def test_the_recipe_can_be_run_from_anywhere(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = scaffold(Ask(tmp_path / "project", Path("images")))
    assert "root: '../images'" in written.files[0].read_text()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = load_recipe("../project/my-recipe.yaml")
    assert Path(str(recipe.data.options["root"])).resolve() == images
    assert Path(recipe.profile).resolve() == tmp_path / "project" / "my-device.yaml"


def test_a_file_of_any_name_can_be_written(images: Path, tmp_path: Path) -> None:
    written = scaffold(Ask(tmp_path / "Birds.yaml", images, write_model(tmp_path), profile="t4"))
    assert [file.name for file in written.files] == ["Birds.yaml", "Birds-device.yaml"]
    assert load_recipe("Birds.yaml").name == "birds"
    profile = load_profile("Birds-device.yaml")
    assert (profile.name, profile.target.device.name, profile.budget) == ("birds-device", load_profile("t4").target.device.name, load_profile("t4").budget)


def test_grey_images_make_a_grey_network(tmp_path: Path) -> None:
    written = scaffold(Ask(tmp_path, make_images(tmp_path / "grey", "L", 20), size=24))
    assert {key: load_recipe(str(written.files[0])).data.options[key] for key in ("size", "channels")} == {"size": 24, "channels": 1}


def test_many_classes_get_more_optimizer_steps(tmp_path: Path) -> None:
    few, many = (make_images(tmp_path / str(number), "L", 16, 1600 // number, [f"{each:02d}" for each in range(number)]) for number in (2, 40))
    recipes = [load_recipe(str(scaffold(Ask(tmp_path / f"for-{found.name}", found, model="resnet8")).files[0])) for found in (few, many)]
    assert recipes[0].training.batch_size == recipes[1].training.batch_size
    assert recipes[1].training.epochs >= 1.5 * recipes[0].training.epochs
    slow = scaffold(Ask(tmp_path / "slow", many, model="resnet8", size=(160, 160)))
    assert load_recipe(str(slow.files[0])).training.epochs < recipes[1].training.epochs
    assert f"40 classes usually take {recipes[1].training.epochs} epochs" in text(slow)
    assert "usually take" not in text(scaffold(Ask(tmp_path / "quick", many, model="resnet8")))


def test_images_of_classes_become_squares_unless_a_height_and_a_width_are_asked_for(tmp_path: Path) -> None:
    images = make_images(tmp_path / "wide", "L", 20, count=20)
    for image in images.rglob("*.png"):
        Image.new("L", (96, 32)).save(image)
    assert load_recipe(str(scaffold(Ask(tmp_path / "a.yaml", images)).files[0])).data.options["size"] == 32
    assert load_recipe(str(scaffold(Ask(tmp_path / "b.yaml", images, size=(16, 48))).files[0])).data.options["size"] == (16, 48)


def test_what_is_there_is_not_replaced_unless_asked_and_a_network_never(images: Path, tmp_path: Path) -> None:
    written = scaffold(Ask(tmp_path, images))
    (tmp_path / "my_model.py").write_text(CLASSIFIER + "# mine\n")
    with pytest.raises(ConfigError, match=r"(?s)a file is there already.*my-recipe\.yaml, .*my-device\.yaml.*--force"):
        scaffold(Ask(tmp_path, images))
    written.files[0].write_text("old")
    again = scaffold(Ask(tmp_path, images, force=True))
    assert "was there and is used" in text(again)
    assert written.files[0].read_text().startswith("# A recipe")
    assert (tmp_path / "my_model.py").read_text().endswith("# mine\n")


def test_a_share_takes_the_place_of_a_parents_milliseconds(images: Path, tmp_path: Path) -> None:
    parent = tmp_path / "camera.yaml"
    parent.write_text("extends: local-cpu\nname: camera\nbudget: {latency: null, latency_ms: 2.5}\n")
    written = scaffold(Ask(tmp_path / "Birds.yaml", images, profile=str(parent)))
    budget = load_profile(str(written.files[1])).budget
    assert (budget.latency, budget.latency_ms) == (0.4, None)
    assert "`bonsai run Birds.yaml` runs it" in written.files[0].read_text()


def test_a_refusal_after_the_network_was_written_leaves_nothing(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    monkeypatch.setattr("bonsai.pipeline.starting.scaffold.segment_stops", refuse)
    with pytest.raises(ConfigError, match="refused"):
        scaffold(Ask(tmp_path / "new", images))
    assert not (tmp_path / "new").exists()


def refuse(*_: object) -> None:
    raise ConfigError("refused")


BROKEN = {
    "takes nothing": ("def build(): pass", "model.options do not fit.*in_channels=3, num_classes=2.*let the factory take in_channels and num_classes"),
    "no network": ("def build(in_channels, num_classes): return 3", "is no network"),
    "wrong logits": ("from torch import nn\ndef build(in_channels, num_classes): return nn.Conv2d(in_channels, 8, 3)", "the network gives no logits"),
    "typing error": ("def bild(in_channels, num_classes): pass", "cannot be imported"),
    "nothing to prune": (
        "from torch import nn\ndef build(in_channels, num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 32 * 32, num_classes))",
        "no channels of this network can be pruned",
    ),
    "no layers": (
        "from torch import nn\ndef build(in_channels, num_classes): return nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d((1, 2)), Sum())\n"
        "class Sum(nn.Module):\n    def forward(self, x): return x.sum(1).flatten(1)",
        "the network has no layer to prune or quantise.*convolutions and linear layers",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_network_that_does_not_fit_is_refused_and_nothing_is_left(case: str, images: Path, tmp_path: Path) -> None:
    code, problem = BROKEN[case]
    (tmp_path / "my_broken.py").write_text(code + "\n")
    with pytest.raises(ConfigError, match=f"(?s){problem}"):
        scaffold(Ask(tmp_path / "new", images, "my_broken:build"))
    assert not (tmp_path / "new").exists()


def test_images_that_cannot_be_opened_are_named(images: Path, tmp_path: Path) -> None:
    (images / "cat" / "broken.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"(?s)1 of 81 files cannot be read as an image.*broken\.jpg"):
        scaffold(Ask(tmp_path, images))


def test_unequal_and_small_classes_are_told(images: Path, tmp_path: Path) -> None:
    for number in range(10, 40):
        (images / "dog" / f"{number}.png").unlink()
    make_images(images, "RGB", 40, count=7)
    for number in range(100, 160):
        Image.new("RGB", (40, 40)).save(images / "cat" / f"{number}.png")
    (images / "list.csv").write_text("")
    told = text(scaffold(Ask(tmp_path, images)))
    assert "warning: cat has 100 images, dog only 10" in told
    assert "warning: dog has 10 images; a network learns little" in told
    assert "1 files that are no images are passed over, such as list.csv" in told


def test_a_folder_of_masks_is_told(images: Path, tmp_path: Path) -> None:
    (images / "dog").rename(images / "Masks")
    assert "warning: the folder Masks is taken for a class; for a segmentation name both folders: --data IMAGES --masks Masks" in text(
        scaffold(Ask(tmp_path, images))
    )


CONFIG = {
    "start_epoch": 5,
    "end_epoch": 20,
    "epoch_rate": 5,
    "global_prune_rate": 0.5,
    "layers": ["blocks.0.conv1", "module.blocks.1.conv1"],
    "prune_channels_at_init": False,
    "pruning_method": "BNScalePruner",
    "isomorphic": True,
    "block_size": 8,
    "regularize": {"reg": 1e-4, "mac_reg": 0},
    "max_pruning_rate": 0.8,
    "is_prune": True,
}


def foreign(tmp_path: Path, slices: object = None, **changes: object) -> Path:
    file = tmp_path / "pruning_config.json"
    file.write_text(json.dumps({"channel_sparsity_args": {**CONFIG, **changes}, "slice_sparsity_args": slices}))
    return file


def imported(tmp_path: Path, images: Path, **changes: object) -> Path:
    return scaffold(Ask(tmp_path, images, write_model(tmp_path)), read_pruning_config(foreign(tmp_path, **changes))).files[0]


def test_a_foreign_configuration_becomes_a_recipe(images: Path, tmp_path: Path) -> None:
    file = imported(tmp_path, images)
    recipe = load_recipe(str(file))
    prune = recipe.prune
    assert (prune.policy.name, prune.policy.epoch) == ("epoch", 5)
    assert (prune.schedule.name, prune.schedule.steps, prune.schedule.iterations, prune.schedule.soft) == ("linear", 3, 5 * (48 // 8), True)
    assert (prune.criterion, prune.normalisation, prune.floor) == ("bn_scale", "none", 0.2)
    assert (prune.regulariser.name, prune.regulariser.strength) == ("bn_l1", 1e-4)
    assert "blocks.0.conv2" in prune.keep
    assert not {"blocks.0.conv1", "blocks.1.conv1"} & set(prune.keep)
    assert recipe.training.epochs == 30
    notes = [line for line in file.read_text().splitlines() if line.startswith("#  ")]
    assert [note.split(":")[0].strip("# ") for note in notes] == ["isomorphic", "regularize.mac_reg", "global_prune_rate", "block_size"]


def test_what_has_no_counterpart_is_said(images: Path, tmp_path: Path) -> None:
    file = imported(tmp_path, images, pruning_method="VBP", prune_channels_at_init=True, end_epoch=5, slices={"is_prune": True, "prune_rate": 0.5})
    assert load_recipe(str(file)).prune.policy.name == "initialisation"
    assert "no such criterion here; magnitude_l2 stands in its place" in file.read_text()
    assert 'slice_sparsity_args: {"is_prune": true, "prune_rate": 0.5}' in file.read_text()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"strat_epoch": 3}, r"strat_epoch is not known \(did you mean 'start_epoch'\?\)"),
        ({"regularize": {"rge": 3}}, "regularize.rge is not known"),
        ({"layers": ["blocks.0.convl"]}, r"no layer of this name \(did you mean 'blocks.0.conv"),
        ({"epoch_rate": 0}, "epoch_rate is not usable"),
        ({"pruning_method": ["BNScalePruner"]}, "pruning_method is not usable"),
        ({"pruning_method": "BNScalePruner", "regularize": {"reg": "1e-4"}}, "reg is not usable"),
        ({"slices": [1]}, "slice_sparsity_args is not usable"),
    ],
)
def test_a_mistyped_configuration_is_refused(changes: dict[str, object], problem: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        imported(tmp_path, images, **changes)


def test_another_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"start_epoch": 5}')
    with pytest.raises(ConfigError, match="no configuration of PruningAwareTraining"):
        read_pruning_config(tmp_path / "a.json")


def test_init_says_what_is_white_in_images_of_more_than_8_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.linspace(0, 4000, 48 * 48).reshape(48, 48).astype(np.uint16)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(40):
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    written = scaffold(Ask(tmp_path, tmp_path / "images"))
    assert "80 grey images of more than 8 bits: 4095 is white (the largest value is 4000; data.options.white states another)" in written.lines


def save_weights(file: Path, model: str, classes: int = 2, channels: int = 3) -> Path:
    sys.path.append(str(Path.cwd()))
    torch.save({"state_dict": build_network(ModelConfig(name=model, seed=3), (channels, 40, 40), classes).state_dict()}, file)
    return file


def test_trained_weights_make_a_short_fine_tuning(images: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path)
    file = save_weights(tmp_path / "best.pth", model)
    anew = load_recipe(str(scaffold(Ask(tmp_path / "anew.yaml", images, model, 40)).files[0]))
    (tmp_path / "project").mkdir()
    written = scaffold(Ask(tmp_path / "project" / "tuned.yaml", images, model, 40, weights=str(file.relative_to(tmp_path))))
    tuned = load_recipe(str(written.files[0]))
    assert "weights: '../best.pth'" in written.files[0].read_text()
    assert Path(str(tuned.model.weights)).resolve() == file
    assert (tuned.training.reference, tuned.prune.distill) == ("given", DistillConfig(teacher="trained"))
    assert tuned.prune.recover.epochs is None
    assert tuned.training.epochs <= anew.training.epochs / 2
    assert tuned.training.lr == pytest.approx(anew.training.lr / 5, rel=0.05)
    assert tuned.quantize.lr == anew.quantize.lr


def test_a_recipe_shows_how_the_first_and_the_last_layer_are_kept(images: Path, tmp_path: Path) -> None:
    recipe = scaffold(Ask(tmp_path / "mine.yaml", images, write_model(tmp_path), 40)).files[0]
    assert "such as the first: ['stem.0']; the last is never pruned" in recipe.read_text()
    assert "such as the first and the last: ['stem.0', 'head']" in recipe.read_text()
    assert "# mean:" not in recipe.read_text()
    assert (load_recipe(str(recipe)).prune.keep, load_recipe(str(recipe)).quantize.keep_float) == ((), ())


@pytest.mark.parametrize(("channels", "mode", "mean"), [(3, "RGB", [0.485, 0.456, 0.406]), (1, "L", [0.5])])
def test_a_recipe_of_trained_weights_has_the_place_of_their_normalisation(channels: int, mode: str, mean: list[float], tmp_path: Path) -> None:
    model, images = write_model(tmp_path), make_images(tmp_path / "images", mode, 40)
    weights = save_weights(tmp_path / "best.pth", model, channels=channels)
    recipe = scaffold(Ask(tmp_path / "tuned.yaml", images, model, 40, weights=str(weights))).files[0]
    assert load_recipe(str(recipe)).data.options.keys() == {"root", "size", "channels"}
    recipe.write_text(recipe.read_text().replace("# mean", "mean").replace("# std", "std"))
    assert load_recipe(str(recipe)).data.options["mean"] == tuple(mean)


@pytest.mark.parametrize(("parts", "told"), [((), "all images"), (("train", "val"), "train/"), (("train", "test"), None)])
def test_test_images_that_the_weights_may_have_seen_are_told(parts: tuple[str, ...], told: str | None, tmp_path: Path) -> None:
    model, images = write_model(tmp_path), tmp_path / "images"
    for part in parts or ("",):
        make_images(images / part, "RGB", 40)
    written = scaffold(Ask(tmp_path / "tuned.yaml", images, model, 40, weights=str(save_weights(tmp_path / "best.pth", model))))
    warning = [line for line in written.lines if "put images that it has not seen into test/" in line]
    assert warning == ([] if told is None else [f"warning: the test images are taken from {told}; {warning[0].partition('; ')[2]}"])


def test_weights_for_other_classes_train_a_reference_first(images: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path)
    written = scaffold(Ask(tmp_path / "tuned.yaml", images, model, 40, weights=str(save_weights(tmp_path / "best.pth", model, classes=9))))
    recipe = load_recipe(str(written.files[0]))
    assert recipe.training.reference == "trained"
    assert "the weights are for other classes than these 2: head begins with random ones" in text(written)


def test_weights_say_how_many_channels_images_have(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    grey = make_images(tmp_path / "grey", "L", 40)
    written = scaffold(Ask(tmp_path / "tuned.yaml", grey, model, 40, weights=str(save_weights(tmp_path / "best.pth", model))))
    assert load_recipe(str(written.files[0])).data.options["channels"] == 3


def test_weights_need_a_network_and_a_size(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--weights: the network that they are of is not named\n  given:   best\.pth"):
        scaffold(Ask(tmp_path / "tuned.yaml", images, weights="best.pth"))
    model = write_model(tmp_path)
    file = str(save_weights(tmp_path / "best.pth", model))
    with pytest.raises(ConfigError, match=r"(?s)--weights: nothing tells the size of the images.*--size N"):
        scaffold(Ask(tmp_path / "tuned.yaml", images, model, weights=file))
    for image in images.rglob("*.png"):
        Image.new("RGB", (24, 24)).save(image)
    assert load_recipe(str(scaffold(Ask(tmp_path / "tuned.yaml", images, model, weights=file)).files[0])).data.options["size"] == 24


def test_weights_of_another_network_leave_nothing_behind(images: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path)
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "best.pth")
    with pytest.raises(ConfigError, match=r"model\.weights: the weights are not of this network"):
        scaffold(Ask(tmp_path / "new" / "tuned.yaml", images, model, 40, weights=str(tmp_path / "best.pth")))
    assert not (tmp_path / "new").exists()
