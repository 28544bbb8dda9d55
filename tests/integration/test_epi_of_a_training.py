"""EPI on the scores of a real training: what it sees, and that two criteria fire at different moments."""

from pathlib import Path

import pytest
import torch

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.targets import prepare_target
from bonsai.pipeline.run.trunk import segment_stops, trunk_inputs
from bonsai.profiles.loader import load_profile
from bonsai.stages.data.registry import source_digest
from bonsai.stages.networks.checkpoints import load_scores
from bonsai.stages.pruning.epi import EpiConfig, over_window, settled, similarity, threshold
from bonsai.stages.pruning.groups import Group
from bonsai.stages.pruning.limits import least_channels
from bonsai.stages.pruning.scores import Scores, normalise
from bonsai.stages.selection.subnetwork import Ranking
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.store import Store

pytestmark = pytest.mark.slow  # a training

CRITERIA = ("magnitude_l2", "bn_gradient", "snip")
SHARE = 0.4
"""Of the dense network's latency, by the roofline."""


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ranking, tuple[Group, ...], dict[str, list[Scores]]]:
    """Train ResNet-8 on the digits up to the latest check; return its scores at every check, by criterion."""
    store = Store(Path(tmp_path_factory.mktemp("store")))
    overrides = {"model.name": "resnet8", "data.options": "{size: 16}", "training.epochs": 10, "training.threads": 1}
    recipe = load_recipe("resnet-edge", overrides)
    dataset = store.run(prepare, data=recipe.data, content=source_digest(recipe.data))
    network = inspect_network(recipe, dataset.image_shape, len(dataset.classes))
    target = prepare_target(recipe, load_profile("x86-avx512-vnni", {"budget.latency": 0.9}), network, store.run)
    segment, found = store.run(initialise, dataset=dataset, model=recipe.model, weights=None), {criterion: list[Scores]() for criterion in CRITERIA}
    for stop in segment_stops(recipe, dataset.sizes["train"])[0]:
        segment = store.run(train_dense, **trunk_inputs(recipe, dataset, network.groups), previous=segment, stop=stop)
        for criterion, seen in found.items():
            seen.append(normalise(load_scores(segment, criterion), network.groups, "none"))
    limit = SHARE * target.latency(network.dense_widths)
    return Ranking(target.latency, target.options, limit, {group.name: least_channels(group, 0.1) for group in network.groups}), network.groups, found


def curve_of(ranking: Ranking, scores: list[Scores]) -> list[float]:
    return [value for value in over_window(similarity, [ranking.keep(step) for step in scores], EpiConfig().window) if value is not None]


def fires_at(ranking: Ranking, scores: list[Scores], criterion: str) -> int | None:
    config, kept = EpiConfig(), [ranking.keep(step) for step in scores]
    curve = over_window(similarity, kept, config.window)
    return next((check for check in range(1, len(curve) + 1) if settled(curve[:check], config, threshold(config, criterion))), None)  # type: ignore[arg-type]


def test_epi_of_gradients_rises_while_the_network_learns(trunk: tuple[Ranking, tuple[Group, ...], dict[str, list[Scores]]]) -> None:
    ranking, _, scores = trunk
    curve = curve_of(ranking, scores["bn_gradient"])
    assert min(curve[:5]) + 0.02 < max(curve)
    assert len(set(curve)) > 10


def test_two_criteria_fire_at_different_checks(trunk: tuple[Ranking, tuple[Group, ...], dict[str, list[Scores]]]) -> None:
    ranking, _, scores = trunk
    moments = {criterion: fires_at(ranking, scores[criterion], criterion) for criterion in CRITERIA}
    assert moments["magnitude_l2"] == EpiConfig().first_check
    assert moments["bn_gradient"] != moments["magnitude_l2"]


def test_shuffling_the_scores_between_checks_lowers_epi(trunk: tuple[Ranking, tuple[Group, ...], dict[str, list[Scores]]]) -> None:
    ranking, groups, scores = trunk
    generator = torch.Generator().manual_seed(0)

    def shuffled(step: Scores) -> Scores:
        """Deal the scores of all channels out anew, over all groups."""
        dealt = torch.cat([step[group.name] for group in groups])
        dealt = dealt[torch.randperm(len(dealt), generator=generator)]
        return dict(zip((group.name for group in groups), dealt.split([group.width for group in groups]), strict=True))

    true = curve_of(ranking, scores["bn_gradient"])
    wild = curve_of(ranking, [shuffled(step) if check % 2 else step for check, step in enumerate(scores["bn_gradient"])])
    assert sum(wild) / len(wild) <= sum(true) / len(true) - 0.05
