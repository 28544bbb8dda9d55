import random

import pytest

from bonsai.pipeline.run.device_timing import networks_near
from bonsai.profiles.latency import Entry, LatencyTable, TableMeta
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.networks.cifar_resnet import resnet20
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.limits import width_options
from bonsai.stages.selection.fitting import FittedLatency
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.steps.characterize import grid_points

META = {"source": "measured", "device": "d", "runtime": "r", "runtime_version": "1", "precision": "fp32", "batch": 1, "threads": 1, "step": 16}
TABLE_META = TableMeta.model_validate({**META, "clock": "c", "statistic": "s", "date": "d"})
SHAPE = (1, 32, 32)
NETWORK = resnet20(in_channels=1, num_classes=10, width=32)
GROUPS = find_groups(NETWORK, SHAPE)
OPERATORS = list_operators(NETWORK, GROUPS, SHAPE)
OPTIONS = {group.name: width_options(group, step=16, floor=0.1) for group in GROUPS}


def true_us(cls: OperatorClass, ci: int, co: int) -> float:
    """What an operator takes in a network: small maps are relatively slower than in the table."""
    return 1 + cls.height**2 * cls.taps * (ci * co * 2e-4 + ci * 1e-3) * (1.3 if cls.height == 8 else 1.0)


def table_us(cls: OperatorClass, ci: int, co: int) -> float:
    return 2.5 + cls.height**2 * cls.taps * ci * co * 2e-4


def networks(count: int, seed: int) -> list[dict[str, int]]:
    rng = random.Random(seed)
    edges = [{group: pick(widths) for group, widths in OPTIONS.items()} for pick in (max, min)]
    return edges + [{group: rng.choice(widths) for group, widths in OPTIONS.items()} for _ in range(count)]


def measured(widths: dict[str, int]) -> float:
    return 0.02 + sum(true_us(operator.operator, *operator.channels(widths)) for operator in OPERATORS) / 1e3


TABLE = LatencyTable(
    TABLE_META,
    [Entry(operator=p[0], ci=p[1], co=p[2], p10_us=table_us(*p), p50_us=table_us(*p), reps=1, kernels="") for p in grid_points(OPERATORS, GROUPS, 16)],
)


def test_two_networks_give_the_line_through_both() -> None:
    timed = [(widths, measured(widths)) for widths in networks(0, 0)]
    latency = FittedLatency(TABLE, OPERATORS, timed)
    assert latency.table is TABLE
    for widths, ms in timed:
        assert latency(widths) == pytest.approx(ms)


def test_a_dozen_networks_correct_the_operators_that_the_line_cannot() -> None:
    line = FittedLatency(TABLE, OPERATORS, [(widths, measured(widths)) for widths in networks(0, 0)])
    corrected = FittedLatency(TABLE, OPERATORS, [(widths, measured(widths)) for widths in networks(12, 0)])
    unseen = networks(30, 1)[2:]
    errors = [[abs(latency(widths) / measured(widths) - 1) for widths in unseen] for latency in (line, corrected)]
    assert sum(errors[1]) < 0.65 * sum(errors[0])
    assert sum(errors[1]) / len(unseen) < 0.02


def test_a_machine_on_which_wider_is_faster_is_refused() -> None:
    dense, narrow = networks(0, 0)
    with pytest.raises(ValueError, match="does not grow"):
        FittedLatency(TABLE, OPERATORS, [(dense, 1.0), (narrow, 2.0)])


def test_where_noise_is_larger_than_what_widths_save_the_line_goes_through_the_edges() -> None:
    dense, narrow, *others = networks(6, 0)
    line = FittedLatency(TABLE, OPERATORS, [(dense, 1.1), (narrow, 1.0)])
    noisy = FittedLatency(TABLE, OPERATORS, [(dense, 1.1), (narrow, 1.0), *((widths, 3.0 - line(widths)) for widths in others)])
    assert noisy(dense) == pytest.approx(1.1)
    assert noisy(narrow) == pytest.approx(1.0)


def test_networks_near_a_budget_make_predictions_better_there() -> None:
    timed = [(widths, measured(widths)) for widths in networks(12, 0)]
    plain = FittedLatency(TABLE, OPERATORS, timed)
    near = networks_near(OPTIONS, plain, 0.25 * measured(networks(0, 0)[0]), 40)
    taught, tried = [(widths, measured(widths)) for widths in near[::4]], [widths for place, widths in enumerate(near) if place % 4]
    errors = [sum(abs(latency(widths) / measured(widths) - 1) for widths in tried) / len(tried) for latency in (plain, plain.survey(taught))]
    assert errors[1] < 0.85 * errors[0]


def test_a_network_that_was_chosen_and_timed_is_learnt() -> None:
    dense, narrow, *others = networks(12, 0)
    chosen, ms = others[0], 1.15 * measured(others[0])
    before = FittedLatency(TABLE, OPERATORS, [(widths, measured(widths)) for widths in (dense, narrow, *others[1:])])
    after = before.learn([(chosen, ms)])
    assert abs(after(chosen) / ms - 1) < 0.6 * abs(before(chosen) / ms - 1)
    assert after(dense) == pytest.approx(before(dense), rel=0.1)
    assert before.learn([]).table.entries == before.table.entries


def test_networks_near_a_limit_are_the_same_each_time_and_near_it() -> None:
    latency = FittedLatency(TABLE, OPERATORS, [(widths, measured(widths)) for widths in networks(12, 0)])
    for share in (0.2, 0.5):
        limit = share * latency(networks(0, 0)[0])
        found = networks_near(OPTIONS, latency, limit, 12)
        assert found == networks_near(OPTIONS, latency, limit, 12)
        assert len({tuple(widths.values()) for widths in found}) == 12
        assert all(abs(latency(widths) / limit - 1) < 0.15 for widths in found)
    assert networks_near(OPTIONS, latency, limit, 0) == []
