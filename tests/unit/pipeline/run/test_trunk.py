"""How far the trunk is trained, and which of its checkpoints is the reference."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.targets import ReadyTarget
from bonsai.pipeline.run.trunk import grow_trunk
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.preprocess import Preprocess
from bonsai.stages.networks.checkpoint import Checkpoint, Start
from bonsai.stages.networks.config import ModelConfig

EPOCHS, BATCHES = 10, 8
TOTAL = EPOCHS * BATCHES
SHAPE = (1, 8, 8)
AT_FIVE = {"name": "epoch", "epoch": EPOCHS / 2}
Grow = Callable[..., tuple[list[int], int | None]]


@pytest.fixture
def grow(tmp_path: Path) -> Grow:
    """Return the steps at which the segments of a trunk end, and the step of the reference."""

    def call(policy: dict[str, Any], reference: str) -> tuple[list[int], int | None]:
        recipe = load_recipe("resnet-edge", {"training.epochs": EPOCHS, "prune.policy": policy})
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"reference": reference})})
        sizes = {"train": BATCHES * recipe.training.batch_size}
        dataset = Dataset(folder=tmp_path, name="d", preprocess=Preprocess.of(SHAPE), classes=("a", "b"), sizes=sizes, licence="")
        chooser = SimpleNamespace(keep=lambda _scores: {"layer": (0, 1)})
        target = SimpleNamespace(profile=SimpleNamespace(name="p"), groups=(), scores=lambda _segment: {}, followed=SimpleNamespace(chooser=chooser))
        stops: list[int] = []

        initial = Checkpoint(folder=tmp_path, model=ModelConfig(name="resnet8"), num_classes=2, image_shape=SHAPE, start=Start())

        def step(_stage: Callable[..., Checkpoint], /, *, stop: int, **_inputs: Any) -> Checkpoint:
            stops.append(stop)
            return initial.model_copy(update={"step": stop, "start": None})

        monitors, dense = grow_trunk(recipe, dataset, initial, [cast(ReadyTarget, target)], step)
        assert all(monitor.segment is not None for monitor in monitors)
        return stops, None if dense is None else dense.step

    return call


def test_the_trunk_of_a_trained_reference_goes_on_to_the_end(grow: Grow) -> None:
    stops, reference = grow(AT_FIVE, "trained")
    assert (stops[-2], stops[-1], reference) == (TOTAL // 2, TOTAL, TOTAL)


def test_without_a_reference_the_trunk_ends_when_the_last_target_branches_off(grow: Grow) -> None:
    stops, reference = grow(AT_FIVE, "none")
    assert (stops[-1], reference) == (TOTAL // 2, None)


def test_epi_ends_a_trunk_without_a_reference_at_its_check(grow: Grow) -> None:
    whole, _ = grow({"name": "epi"}, "trained")
    stops, reference = grow({"name": "epi"}, "none")
    assert stops == whole[: len(stops)]
    assert stops[-1] < TOTAL / 4
    assert reference is None


def test_given_weights_are_the_reference_before_any_training(grow: Grow) -> None:
    stops, reference = grow(AT_FIVE, "given")
    assert (0 in stops, stops[-1], reference) == (False, TOTAL // 2, 0)


def test_a_target_that_branches_off_at_the_end_needs_the_whole_trunk(grow: Grow) -> None:
    stops, reference = grow({"name": "trained", "finetune": {}}, "none")
    assert (stops[-1], reference) == (TOTAL, None)
