"""Residual blocks that may be left out, in work, latency and value: exact at every choice, and chosen as a whole or not at all."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from milp import solve_exactly
from residual import BLOCKS, NETWORKS, SHAPE
from torch import nn

from bonsai.profiles.latency import Entry, LatencyTable, Line, TableMeta
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.pruning.block_losses import BlockLoss, BlockLosses
from bonsai.stages.pruning.blocks import groups_with_blocks
from bonsai.stages.pruning.groups import Group, first_channels
from bonsai.stages.pruning.limits import width_options
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.selection.bound import smallest_latency
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operator_records import Operator, blocks_in, count_macs_at, whole_blocks
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.selection.problem import Problem
from bonsai.stages.selection.search import select_widths
from bonsai.stages.selection.terms import Options
from bonsai.stages.selection.values import Value, values_of
from bonsai.stages.steps.characterize import grid_points

STEP = 4
META = {"source": "measured", "device": "d", "runtime": "r", "runtime_version": "1", "precision": "fp32", "batch": 1, "threads": 1, "step": STEP}
TABLE_META = TableMeta.model_validate({**META, "clock": "c", "statistic": "s", "date": "d"})


@cache
def read(name: str) -> tuple[nn.Module, tuple[Group, ...], tuple[Operator, ...]]:
    network: nn.Module = NETWORKS[name]().eval()
    groups = groups_with_blocks(network, SHAPE)
    return network, groups, list_operators(network, groups, SHAPE)


@cache
def latency_of(name: str) -> tuple[NetworkLatency, Options]:
    _, groups, operators = read(name)
    times = {
        point: 2 + point[0].macs(point[1], point[2]) / 1e4 + 0.3 * point[1] ** 1.5 + 0.2 * point[2] ** 1.5 for point in grid_points(operators, groups, STEP)
    }
    entries = [Entry(operator=cls, ci=ci, co=co, p10_us=us, p50_us=us, reps=1, kernels="") for (cls, ci, co), us in times.items()]
    options = {group.name: ((0,) if group.block else ()) + width_options(group, step=STEP, floor=0.2) for group in groups}
    return NetworkLatency(LatencyTable(TABLE_META, entries), operators, Line(offset_ms=0.01, scale=1.1)), options


def draw(name: str, rng: np.random.Generator) -> dict[str, int]:
    """Return random options, with half of the blocks left out."""
    _, options = latency_of(name)
    gone = {group for groups in BLOCKS[name].values() if rng.random() < 0.5 for group in groups}
    return {group: 0 if group in gone else int(rng.choice([width for width in widths if width])) for group, widths in options.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_work_and_time_are_those_of_the_network_without_its_blocks(name: str) -> None:
    _, groups, operators = read(name)
    latency, options = latency_of(name)
    terms, rng = latency.terms(options), np.random.default_rng(0)
    assert set(blocks_in(operators)) == set(BLOCKS[name].values())
    for _ in range(12):
        widths = draw(name, rng)
        pruned: nn.Module = NETWORKS[name]().eval()
        cut(pruned, groups, first_channels(widths))
        assert count_macs_at(operators, widths) == count_macs(pruned, SHAPE)
        assert terms.total(terms.choice(widths)) == pytest.approx(latency(widths))
        left = [operator for operator in operators if operator.is_there(widths)]
        assert latency(widths) == pytest.approx(NetworkLatency(latency.table, tuple(left), latency.line)(widths))
        forecast = latency.forecast({group.name: group.width for group in groups}, widths)
        assert forecast.kept_ms == pytest.approx(latency(widths))


def losses(blocks: dict[str, tuple[str, ...]], loss: dict[str, float], halved: float) -> BlockLosses:
    found = tuple(BlockLoss(name=name, groups=groups, loss=loss[name]) for name, groups in blocks.items())
    return BlockLosses(folder=Path(), blocks=found, halved={group: halved for groups in blocks.values() for group in groups})


def scores_of(options: Options, seed: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    return {group: rng.lognormal(0, 0.5, max(widths)).tolist() for group, widths in options.items()}


@pytest.mark.parametrize("kind", ["reciprocal", "sum"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", [0.7, 0.4])
def test_selection_leaves_whole_blocks_out_or_none_and_its_bound_holds(name: str, kind: Value, share: float) -> None:
    latency, options = latency_of(name)
    terms = latency.terms(options)
    smallest, fastest = smallest_latency(terms)
    assert whole_blocks(terms.widths_at(fastest), BLOCKS[name].values()) == terms.widths_at(fastest)
    limit = smallest + share * (terms.total(np.array([len(widths) - 1 for widths in options.values()])) - smallest)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        found = losses(BLOCKS[name], {block: rng.uniform(0, 2) for block in BLOCKS[name]}, halved=0.5)
        values = values_of(kind, scores_of(options, seed), options, latency.operators, found)
        chosen = select_widths(values, options, latency, limit)
        assert whole_blocks(chosen.widths, BLOCKS[name].values()) == chosen.widths
        assert latency(chosen.widths) == pytest.approx(chosen.predicted_ms) and chosen.predicted_ms <= limit
        problem = Problem.of(values, terms, limit)
        exact, bound = solve_exactly(problem, seconds=20)
        assert exact is not None
        assert chosen.value >= problem.value(exact) - 0.02 * abs(problem.value(exact))
        assert chosen.bound >= problem.value(exact) - 1e-6 * abs(bound)


def test_a_block_that_the_loss_needs_stays_and_one_that_it_does_not_need_leaves() -> None:
    latency, options = latency_of("resnet20")
    blocks = BLOCKS["resnet20"]
    whole = {group: max(widths) for group, widths in options.items()}
    for idle, needed in (("layer2.1", "layer2.2"), ("layer2.2", "layer2.1")):
        loss = dict.fromkeys(blocks, 2.0) | {idle: 0.0}
        values = values_of("reciprocal", {group: [1.0] * width for group, width in whole.items()}, options, latency.operators, losses(blocks, loss, halved=0.5))
        chosen = select_widths(values, options, latency, 0.5 * latency(whole)).widths
        assert chosen[blocks[idle][0]] == 0
        assert chosen[blocks[needed][0]] > 0


@pytest.mark.parametrize("kind", ["reciprocal", "sum"])
def test_a_block_costs_the_value_that_halves_of_the_same_loss_cost(kind: Value) -> None:
    latency, options = latency_of("bottlenecks")
    blocks, scores = BLOCKS["bottlenecks"], scores_of(options, 0)
    inside = [group for groups in blocks.values() for group in groups]

    def left(loss: float) -> float:
        values = values_of(kind, scores, options, latency.operators, losses(blocks, dict.fromkeys(blocks, loss), halved=0.5))
        return sum(values[group][0] for group in inside)

    values = values_of(kind, scores, options, latency.operators, losses(blocks, dict.fromkeys(blocks, 1.0), halved=0.5))
    whole = sum(values[group][max(options[group])] for group in inside)
    halves = sum(values[group][min(options[group], key=lambda width, group=group: abs(width - max(options[group]) / 2))] for group in inside)
    assert left(0.0) == left(-0.1) == pytest.approx(whole)
    assert left(1.0) == pytest.approx(halves)  # two blocks of loss 1 are four halves of loss 0.5
    assert left(2.0) == pytest.approx(whole - 2 * (whole - halves))
