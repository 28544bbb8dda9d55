"""The size of images that is worth most within the budget: each has its own latencies, and costs what its loss is worth."""

from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_chooser import FACTS, STEP

from bonsai.profiles.errors import BudgetError
from bonsai.profiles.latency import Entry, LatencyTable, Line, TableMeta
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.limits import width_options
from bonsai.stages.pruning.resolution_losses import ResolutionLoss, ResolutionLosses
from bonsai.stages.pruning.scores import Scores
from bonsai.stages.selection.chooser import Chooser
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.selection.resolution_records import Resolution, Size, describe_resolutions
from bonsai.stages.selection.resolutions import choose_resolution
from bonsai.stages.selection.values import values_of
from bonsai.stages.steps.characterize import grid_points

SIDES = (16, 12, 8)


@cache
def chooser_at(side: int, limit_ms: float, floor: float = 0.25) -> Chooser:
    """Return a chooser for images of a side, on a device where every operator takes as long as it has products."""
    network = resnet8(in_channels=1, num_classes=10)
    groups = find_groups(network, (1, side, side))
    operators = list_operators(network, groups, (1, side, side))
    times = {point: 0.1 + point[0].macs(point[1], point[2]) / 1e3 for point in grid_points(operators, groups, STEP)}
    entries = [Entry(operator=cls, ci=ci, co=co, p10_us=us, p50_us=us, reps=1, kernels="") for (cls, ci, co), us in times.items()]
    latency = NetworkLatency(LatencyTable(TableMeta.model_validate({**FACTS, "clock": "c", "statistic": "s", "date": "d"}), entries), operators, Line())
    options = {group.name: width_options(group, step=STEP, floor=floor) for group in groups}
    return Chooser(groups, operators, options, latency, limit_ms, PruneConfig())


def choosers(share: float, floor: float = 0.25) -> dict[Size, Chooser]:
    """Return the choosers of all sizes, for a share 0-1 of the dense latency at the full size."""
    full = chooser_at(SIDES[0], 1.0)
    limit_ms = share * full.latency({group.name: group.width for group in full.groups})
    return {(side, side): chooser_at(side, limit_ms, floor) for side in SIDES}


def scores() -> Scores:
    generator = torch.Generator().manual_seed(0)
    return {group.name: torch.rand(group.width, generator=generator) for group in chooser_at(SIDES[0], 1.0).groups}


def losses(*rises: float, halved: float = 0.1) -> ResolutionLosses:
    sizes = tuple(ResolutionLoss(size=(side, side), loss=loss) for side, loss in zip(SIDES[1:], rises, strict=True))
    return ResolutionLosses(folder=Path(), sizes=sizes, halved=dict.fromkeys(scores(), halved))


def chosen(found: tuple[Resolution, ...]) -> int:
    (size,) = (each.size for each in found if each.chosen)
    return size[0]


def test_smaller_images_win_where_they_cost_little_and_the_budget_is_small() -> None:
    assert chosen(choose_resolution(choosers(0.3), scores(), losses(0.0, 5.0))) == 12
    assert chosen(choose_resolution(choosers(0.3), scores(), losses(0.0, 0.0))) == 8


def test_the_full_size_wins_where_smaller_images_cost_much() -> None:
    assert chosen(choose_resolution(choosers(0.3), scores(), losses(5.0, 5.0))) == 16


def test_the_full_size_stays_where_nothing_must_leave() -> None:
    assert chosen(choose_resolution(choosers(1.1), scores(), losses(0.001, 0.001))) == 16


def test_smaller_images_win_whatever_they_cost_where_the_full_size_cannot_meet_the_budget() -> None:
    found = choose_resolution(choosers(0.05), scores(), losses(5.0, 9.0))
    assert [each.value is None for each in found] == [True, False, False]
    assert chosen(found) == 12


@pytest.mark.parametrize("floor", [0.25, 0.7])
def test_a_size_costs_the_value_that_halves_of_the_same_loss_cost(floor: float) -> None:
    at, found_at = choosers(0.9, floor), {}
    for loss in (0.0, -0.3, 0.1 * len(scores())):
        found_at[loss] = choose_resolution(at, scores(), losses(loss, 9.0))[1].value
    chooser = at[12, 12]
    assert found_at[0.0] == found_at[-0.3] == pytest.approx(chooser.select(scores()).value)
    options = {group.name: (group.width // 2, group.width) for group in chooser.groups}
    values = values_of("reciprocal", {group: vector.tolist() for group, vector in scores().items()}, options, chooser.operators)
    halves = sum(table[max(table)] - table[min(table)] for table in values.values())
    assert found_at[0.1 * len(scores())] == pytest.approx(chooser.select(scores()).value - halves)


def test_the_largest_size_within_the_budget_is_taken_where_losses_tell_nothing() -> None:
    found = choose_resolution(choosers(0.3), scores(), losses(0.0, 0.0, halved=-0.1))
    assert chosen(found) == 16
    assert not any(each.known for each in found)
    assert chosen(choose_resolution(choosers(0.05), scores(), losses(0.0, 0.0, halved=-0.1))) == 12


def test_a_budget_that_no_size_can_meet_is_refused() -> None:
    with pytest.raises(BudgetError, match="the latency budget cannot be met"):
        choose_resolution(choosers(1e-4), scores(), losses(0.0, 0.0))


def test_all_sizes_are_told_with_what_they_were_predicted_to_be_worth() -> None:
    facts = {"known": True, "loss": 0.25, "value": -31.234}
    found = tuple(Resolution(size=(side, side), chosen=side == 12, **{**facts, **more}) for side, more in ((16, {"value": None}), (12, {})))
    assert describe_resolutions(found) == "input resolution 12x12, of 16x16 cannot meet the budget; 12x12 (loss +0.25, predicted value -31.23)"
    unknown = found[1].model_copy(update={"known": False})
    assert describe_resolutions((unknown,)) == "input resolution 12x12, of 12x12 (loss +0.25, value not known)"
    assert describe_resolutions(()) == ""
