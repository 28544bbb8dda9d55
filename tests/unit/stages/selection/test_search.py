import random
from collections.abc import Callable, Sequence
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_chooser import make_chooser

from bonsai.profiles.errors import BudgetError
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.criteria import Normalisation
from bonsai.stages.pruning.groups import Group, Widths
from bonsai.stages.pruning.limits import width_options
from bonsai.stages.pruning.scores import normalise
from bonsai.stages.selection.loop import Measured, fit_widths
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.selection.problem import Values
from bonsai.stages.selection.reselection import Reselection
from bonsai.stages.selection.search import select_widths
from bonsai.stages.selection.terms import Options, Terms
from bonsai.stages.selection.values import Value, values_from_scores, values_of

OPTIONS = {"a": (16, 32), "b": (16, 32, 48, 64), "c": (16, 32, 48, 64)}


def total_value(values: Values, widths: Widths) -> float:
    return sum(values[group][width] for group, width in widths.items())


class Chain:
    """Latency of a chain of three groups: a hand-written fake with a cost per pair, as convolutions have."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, widths: Widths) -> float:
        a, b, c = (widths[group] for group in "abc")
        return self.scale * (a + a * b / 16 + b * c / 16 + c) / 100

    def learn(self, _: Sequence[tuple[Widths, float]]) -> "Chain":
        return self

    def terms(self, options: Options) -> Terms:
        a, b, c = (np.array(options[group], dtype=float) for group in "abc")
        share = self.scale / 100
        return Terms(
            options,
            unary={"a": share * a, "c": share * c},
            pairs={("a", "b"): share * np.outer(a, b) / 16, ("c", "b"): share * np.outer(c, b) / 16},
        )


def timed(truth: Callable[[Widths], float]) -> Callable[[Widths], Measured]:
    return lambda widths: Measured(truth(widths), truth(widths))


scores = st.fixed_dictionaries({group: st.lists(st.floats(0, 10), min_size=max(w), max_size=max(w)) for group, w in OPTIONS.items()})


@settings(max_examples=60, deadline=None)
@given(scores, st.floats(1.0, 4.2))
def test_selection_is_feasible_and_close_to_the_exhaustive_optimum(vectors: dict[str, list[float]], limit: float) -> None:
    values, latency = values_from_scores(vectors, OPTIONS), Chain()
    found = select_widths(values, OPTIONS, latency, limit)
    chosen = found.widths
    assert latency(chosen) <= limit + 1e-9
    networks = [dict(zip(OPTIONS, widths, strict=True)) for widths in product(*OPTIONS.values())]
    best = max(total_value(values, widths) for widths in networks if latency(widths) <= limit)
    assert total_value(values, chosen) >= 0.95 * best
    assert found.bound >= best - 1e-9


def test_a_larger_budget_never_loses_value() -> None:
    vectors = {group: [float(1 + (7 * i) % 5) for i in range(max(w))] for group, w in OPTIONS.items()}
    values = values_from_scores(vectors, OPTIONS)
    kept = [total_value(values, select_widths(values, OPTIONS, Chain(), limit).widths) for limit in (1.0, 1.5, 2.0, 3.0, 5.0)]
    assert kept == sorted(kept)


def test_a_budget_below_the_narrowest_network_is_refused_with_the_figure() -> None:
    values = values_from_scores({group: [1.0] * max(w) for group, w in OPTIONS.items()}, OPTIONS)
    with pytest.raises(BudgetError, match=r"(?s)cannot be met.*given:   0.5 ms.*at least 0.64 ms"):
        select_widths(values, OPTIONS, Chain(), 0.5)


def test_values_are_sums_of_the_highest_scores() -> None:
    assert values_from_scores({"a": [1.0, 5.0, 2.0, 3.0]}, {"a": (1, 2, 4)}) == {"a": {1: 5.0, 2: 8.0, 4: 11.0}}


@pytest.mark.parametrize(
    ("width", "step", "floor", "expected"),
    [
        (64, 16, 0.1, (16, 32, 48, 64)),
        (64, 16, 0.5, (32, 48, 64)),
        (40, 16, 0.1, (16, 32, 40)),
        (8, 16, 0.1, (8,)),
        (128, 16, 0.2, (32, 48, 64, 80, 96, 112, 128)),
    ],
)
def test_options_are_multiples_above_the_floor_and_the_full_width(width: int, step: int, floor: float, expected: tuple[int, ...]) -> None:
    assert width_options(Group(name="g", width=width, members=()), step=step, floor=floor) == expected


@pytest.mark.parametrize("wrong_by", [0.85, 1.0, 1.2])
def test_the_closed_loop_ends_within_the_budget_when_the_table_is_wrong(wrong_by: float) -> None:
    values = values_from_scores({group: [1.0 + i / 50 for i in range(max(w))] for group, w in OPTIONS.items()}, OPTIONS)
    truth, config = Chain(wrong_by), PruneConfig()
    fit = fit_widths(values, OPTIONS, Chain(), 2.5, config, timed(truth))
    assert truth(fit.widths) <= 2.5 * (1 - config.margin)
    assert 1 <= len(fit.rounds) <= config.rounds


@pytest.mark.parametrize("seed", range(20))
def test_the_closed_loop_does_not_swing_where_every_network_deviates_by_itself(seed: int) -> None:
    """Each network's latency is off by up to 4 % of its own, and all by 8 %: one measurement says little of the next network."""
    generator = random.Random(seed)
    own: dict[tuple[int, ...], float] = {}
    options = {group: tuple(range(4, 65, 2)) for group in OPTIONS}
    values = values_from_scores({group: [1.0 + generator.random() for _ in range(max(w))] for group, w in options.items()}, options)

    def truth(widths: Widths) -> float:
        return 1.08 * Chain()(widths) * own.setdefault(tuple(widths.values()), 1 + generator.uniform(-0.04, 0.04))

    fit = fit_widths(values, options, Chain(), 2.5, PruneConfig(), timed(truth))
    assert truth(fit.widths) <= fit.aim_ms
    assert truth(fit.widths) >= 0.85 * fit.aim_ms


def test_choosing_again_never_widens_what_is_left() -> None:
    chooser = make_chooser(resnet8(in_channels=1, num_classes=10), (1, 16, 16))
    groups, options, again = chooser.groups, chooser.options, chooser.reselection(chooser.limit_ms)
    assert Reselection.model_validate_json(again.model_dump_json()).identity() == again.identity()
    generator = torch.Generator().manual_seed(0)
    left = tuple(g.model_copy(update={"width": max(4, g.width * 3 // 4)}) for g in groups)
    widths = again.choose({g.name: torch.rand(g.width, generator=generator) for g in left}, left)
    assert all(widths[g.name] <= g.width for g in left)
    assert chooser.latency(widths) <= again.limit_ms
    assert all(width in options[name] for name, width in widths.items())


def test_without_a_device_the_prediction_decides() -> None:
    values = values_from_scores({group: [1.0] * max(w) for group, w in OPTIONS.items()}, OPTIONS)
    fit = fit_widths(values, OPTIONS, Chain(), 2.5, PruneConfig(), None)
    assert fit.rounds == ()
    assert fit.predicted_ms == Chain()(fit.widths) <= fit.aim_ms


def test_what_a_finished_engine_showed_corrects_the_next_choice() -> None:
    values = values_from_scores({group: [1.0 + i / 50 for i in range(max(w))] for group, w in OPTIONS.items()}, OPTIONS)
    plain = fit_widths(values, OPTIONS, Chain(), 2.5, PruneConfig(), None)
    truth = Chain(1.2)
    blind = fit_widths(values, OPTIONS, Chain(), 2.5, PruneConfig(), timed(truth))
    told = fit_widths(values, OPTIONS, Chain(), 2.5, PruneConfig(), timed(truth), correction=1.2)
    assert truth(plain.widths) > 2.5
    assert truth(told.widths) <= 2.5
    assert len(told.rounds) < len(blind.rounds)
    assert told.rounds[0].predicted_ms == pytest.approx(told.rounds[0].measured_ms)


def test_values_that_fall_without_limit_leave_no_bottleneck() -> None:
    network, shape = resnet8(in_channels=1, num_classes=10, width=32), (1, 16, 16)
    groups = find_groups(network, shape)
    operators = list_operators(network, groups, shape)
    options = {g.name: width_options(g, step=4, floor=0.1) for g in groups}
    flat = {g.name: [1.0] * g.width for g in groups}
    worth = values_of("reciprocal", flat, options, operators)
    assert all(list(values.values()) == sorted(values.values()) for values in worth.values())
    stem, inner = worth["conv1"], worth["layer1.0.conv1"]
    assert stem[32] < inner[32] < 0  # more operators read the stem's channels
    assert inner[4] == 8 * inner[32]
    halved = {name: scores[: len(scores) // 2] for name, scores in flat.items()}
    left = values_of("reciprocal", halved, {name: tuple(w for w in widths if w <= max(widths) // 2) for name, widths in options.items()}, operators)
    assert left["layer1.0.conv1"][4] == inner[4]  # a share of the dense group, whatever earlier cuts took
    assert values_of("sum", flat, options, operators)["conv1"][32] == 32


def test_shares_of_a_group_do_not_depend_on_how_scores_are_normalised() -> None:
    network, shape = resnet8(in_channels=1, num_classes=10, width=32), (1, 16, 16)
    groups = find_groups(network, shape)
    operators = list_operators(network, groups, shape)
    options = {g.name: width_options(g, step=4, floor=0.1) for g in groups}
    scores = {g.name: torch.rand(g.width, generator=torch.Generator().manual_seed(i)) * 10**i for i, g in enumerate(groups)}

    def worth(value: Value, how: Normalisation) -> list[float]:
        comparable = {name: vector.tolist() for name, vector in normalise(scores, groups, how).items()}
        return [worth for table in values_of(value, comparable, options, operators).values() for worth in table.values()]

    for how in get_args(Normalisation):
        assert worth("reciprocal", how) == pytest.approx(worth("reciprocal", "none"), rel=1e-5)
    assert worth("sum", "local") != pytest.approx(worth("sum", "none"), rel=0.1)
