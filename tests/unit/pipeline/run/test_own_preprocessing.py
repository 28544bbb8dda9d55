"""Images as the weights of a library's network want them."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.own_preprocessing import data_of
from bonsai.stages.data.registry import LOADERS
from bonsai.stages.store.artifact import fingerprint

IMAGENET = (0.485, 0.456, 0.406)


def load(*, size: int = 64, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, crop: float | None = None) -> None:
    """Stand in for a loader that can prepare images as it is told."""


@pytest.fixture(autouse=True)
def loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOADERS, "pictures", f"{__name__}:load")


def recipe(name: str, weights: str | None, **options: Any) -> Recipe:
    found = load_recipe("resnet-edge")
    model = found.model.model_copy(update={"name": name, "weights": weights, "options": {}})
    return found.model_copy(update={"model": model, "data": found.data.model_copy(update={"name": "pictures", "options": options})})


@pytest.mark.parametrize("weights", ["pretrained", "best.pth"])
@pytest.mark.parametrize("name", ["timm/mobilenetv3_small_050", "torchvision/mobilenet_v3_small", "mobilenet_v3_small"])
def test_what_a_loader_takes_and_the_recipe_does_not_say_is_the_librarys(name: str, weights: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bonsai"):
        found = data_of(recipe(name, weights, crop=0.5)).options
    assert found == {"mean": IMAGENET, "std": (0.229, 0.224, 0.225), "crop": 0.5}
    assert f"images as the weights of {name} want them: mean (0.485, 0.456, 0.406), std " in caplog.text


@pytest.mark.parametrize(
    ("name", "weights", "options"),
    [
        ("mobilenet_v3_small", None, {}),
        ("mobilenet_v3_small", "recipe:base", {}),
        ("resnet8", "best.pth", {}),
        ("mobilenet_v3_small", "best.pth", {"channels": 1}),
        ("mobilenet_v3_small", "best.pth", {"mean": (0.5,), "std": (0.5,), "crop": 1.0}),
    ],
    ids=["random weights", "another recipe's", "a network of no library", "grey images", "all said"],
)
def test_nothing_else_is_changed(name: str, weights: str | None, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    asked = recipe(name, weights, **options)
    assert data_of(asked) == asked.data
    assert not caplog.messages


@pytest.mark.parametrize(
    ("name", "weights", "told"),
    [
        ("mobilenet_v3_small", "pretrained", "mean (0.4, 0.5, 0.5), not (0.485, 0.456, 0.406)"),
        ("torchvision/googlenet", "best.pth", "mean (0.4, 0.5, 0.5), not (0.5, 0.5, 0.5)"),
    ],
)
def test_another_normalisation_than_the_librarys_weights_want_is_told(name: str, weights: str, told: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bonsai"):
        data_of(recipe(name, weights, mean=(0.4, 0.5, 0.5)))
    assert f"warning: data.options normalise images otherwise than the library's own weights of {name} want them: {told}" in caplog.messages


def test_folders_of_images_take_all_of_it_and_are_told_apart_by_it() -> None:
    asked = recipe("timm/mobilenetv3_small_050", "best.pth", root="images", size=32)
    asked = asked.model_copy(update={"data": asked.data.model_copy(update={"name": "image_folder"})})
    found = data_of(asked)
    assert found.options.keys() == {"root", "size", "mean", "std", "resize", "crop", "interpolation"}
    assert (found.options["resize"], found.options["crop"], found.options["interpolation"]) == ("crop", 0.875, "bicubic")
    assert fingerprint(found) != fingerprint(asked.data)
