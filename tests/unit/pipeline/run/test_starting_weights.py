"""The weights that a run starts with, before anything is trained."""

import logging
from pathlib import Path

import pytest
import torch

from bonsai.pipeline.recipes import recipe as recipes
from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.own_preprocessing import prepare_inputs
from bonsai.pipeline.run.plan import plan_run
from bonsai.pipeline.run.starting_weights import check_start, weights_of
from bonsai.pipeline.run.trunk import segment_stops
from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network, load_training
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.store import Store
from bonsai.stages.training.config import TrainConfig


def saved(folder: Path, classes: int = 10, name: str = "best.pth") -> Path:
    torch.save(build_network(ModelConfig(name="resnet8", options={"width": 16}, seed=5), (1, 16, 16), classes).state_dict(), folder / name)
    return folder / name


def recipe_of(model: ModelConfig, reference: str = "trained") -> Recipe:
    recipe = load_recipe("resnet-edge")
    return recipe.model_copy(update={"model": model, "training": recipe.training.model_copy(update={"reference": reference})})


def started(model: ModelConfig, digits: Dataset, store: Store) -> Checkpoint:
    return store.run(initialise, dataset=digits, model=model, weights=weights_of(model, store.root, store.run))


def test_random_weights_are_those_of_the_networks_seed(digits: Dataset, small_model: ModelConfig, store: Store) -> None:
    initial = started(small_model, digits, store)
    built = build_network(small_model, digits.image_shape, 10).state_dict()
    assert all(torch.equal(value, built[name]) for name, value in load_network(initial).state_dict().items())
    assert initial.reached() == "random weights"
    assert load_training(initial, TrainConfig(ema=0.9, threads=1)).average is not None


def test_a_files_weights_are_taken_wherever_it_lies(digits: Dataset, small_model: ModelConfig, store: Store, tmp_path: Path) -> None:
    file = saved(tmp_path)
    initial = started(small_model.model_copy(update={"weights": str(file)}), digits, store)
    expected = torch.load(file, weights_only=True)
    assert all(torch.equal(value, expected[name]) for name, value in load_network(initial).state_dict().items())
    assert initial.start is not None
    assert initial.start.metrics.keys() == {"validation_top1"}
    assert initial.model == small_model
    (tmp_path / "elsewhere").mkdir()
    moved = file.rename(tmp_path / "elsewhere" / "moved.pth")
    assert started(small_model.model_copy(update={"weights": str(moved)}), digits, store) == initial


def test_what_was_taken_is_said_and_chance_is_warned_of(
    digits: Dataset, small_model: ModelConfig, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"state_dict": {f"module.{name}": value for name, value in torch.load(saved(tmp_path), weights_only=True).items()}}, tmp_path / "all.pth")
    model = small_model.model_copy(update={"weights": str(tmp_path / "all.pth")})
    with caplog.at_level(logging.INFO, logger="bonsai"):
        check_start(started(model, digits, store), digits, recipe_of(model, "given"))
    first, second = caplog.messages
    assert f"{tmp_path / 'all.pth'}: given weights (entry 'state_dict', names without 'module.'); validation top1 0." in first
    assert second.startswith("warning: the dense network's validation top-1 is ")
    assert second.endswith("before any training: were the weights trained with another normalisation, or on other classes?")


def test_a_new_head_is_told_and_is_no_reference(
    digits: Dataset, small_model: ModelConfig, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_model.model_copy(update={"weights": str(saved(tmp_path, classes=3))})
    initial = started(model, digits, store)
    with caplog.at_level(logging.INFO, logger="bonsai"):
        check_start(initial, digits, recipe_of(model))
    assert "given weights; random in fc, where the given ones have another number of outputs" in caplog.text
    assert "warning" not in caplog.text
    with pytest.raises(ConfigError, match=r"training\.reference `given` needs weights for every layer"):
        check_start(initial, digits, recipe_of(model, "given"))


def test_a_recipe_that_was_not_run_has_no_network(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"no recipe of this name was run with this store\n  given:   recipe:base, store .*\n  allowed: nothing"):
        weights_of(ModelConfig(name="resnet8", weights="recipe:base"), store.root, store.run)


def test_the_path_of_weights_starts_from_the_recipes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    text = "name: mine\ndescription: d\nmodel: {name: resnet8, weights: best.pth}\ndata: {name: digits}\n"
    (tmp_path / "project" / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert load_recipe("project/mine.yaml").model.weights == "project/best.pth"
    assert load_recipe("project/mine.yaml", {"model.weights": "other.pth"}).model.weights == "other.pth"
    assert load_recipe("project/mine.yaml", {"model.weights": "recipe:base.pth"}).model.weights == "recipe:base.pth"


BASE = """name: base
description: d
model: {name: resnet8, options: {width: 16}}
data: {name: digits, options: {size: 8}, test: 0.6}
training: {epochs: 2, threads: 1}
prune: {epi: {every: 0.2, window: 1, latest: 0.7}}
"""


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a tiny recipe be one that ships; return its name."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "base.yaml").write_text(BASE)
    monkeypatch.setattr(recipes, "SHIPPED", tmp_path / "recipes")
    return "base"


def test_a_shipped_recipes_network_is_trained_to_its_end_where_no_run_left_one(shipped: str, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    model = ModelConfig(name="resnet8", options={"width": 16}, weights=f"recipe:{shipped}")
    with caplog.at_level(logging.INFO, logger="bonsai"):
        trained = weights_of(model, store.root, store.run)
    assert isinstance(trained, Checkpoint)
    assert "recipe:base: no package of this recipe is in the store; its dense network is trained first" in caplog.text
    recipe = load_recipe(shipped)
    dataset = store.run(prepare, **prepare_inputs(recipe))
    checks, total = segment_stops(recipe, dataset.sizes["train"])
    segments = list(store.manifests(train_dense))
    assert trained.step == total
    assert sorted(segment.record["step"] for segment in segments) == [*checks, total]
    assert trained.reached().startswith("epoch 2, validation top-1 ")
    assert weights_of(model, store.root, store.run) == trained
    assert len(list(store.manifests(train_dense))) == len(segments)


def test_a_dry_run_trains_no_network_to_start_with_and_says_so(shipped: str, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = BASE.replace("name: base", "name: next", 1).replace("{width: 16}", "{width: 32}").replace("width: 32}", f"width: 32}}, weights: recipe:{shipped}")
    (tmp_path / "next.yaml").write_text(text)
    with caplog.at_level(logging.INFO, logger="bonsai"):
        plan = plan_run(*load(str(tmp_path / "next.yaml"), "x86-avx2", {"profile.target.precision": "fp32", "profile.budget.latency": 0.9}), store)
    assert "recipe:base is not trained yet: a run trains that network first; what follows is checked with random weights" in caplog.text
    assert not list(store.manifests(train_dense))
    assert plan.targets[0].next_stage == "prepare"
