"""Search, bound and baselines against brute force and the exact optimum, on real networks' operators."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from milp import solve_exactly
from torch import nn

from bonsai.profiles.latency import Entry, LatencyTable, Line, TableMeta
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.networks.cifar_resnet import resnet8, resnet20
from bonsai.stages.networks.torchvision_models import densenet121, mobilenet_v2, resnet50
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.limits import width_options
from bonsai.stages.selection import bound
from bonsai.stages.selection.baselines import global_ranking, one_sided_knapsack, uniform
from bonsai.stages.selection.bound import relax, smallest_latency
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.selection.problem import Problem
from bonsai.stages.selection.search import select_widths
from bonsai.stages.selection.terms import Options, SumTerm, Terms
from bonsai.stages.selection.values import values_from_scores
from bonsai.stages.steps.characterize import grid_points

META = {"source": "measured", "device": "d", "runtime": "r", "runtime_version": "1", "precision": "fp32", "batch": 1, "threads": 1, "step": 16}
TABLE_META = TableMeta.model_validate({**META, "clock": "c", "statistic": "s", "date": "d"})


class Concatenated(nn.Module):
    """A convolution on the joined outputs of two others, of which one is added to what comes after."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(3, 48, 3, padding=1)
        self.joined, self.head = nn.Conv2d(80, 32, 1), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.first(x).relu(), self.second(x).relu()
        return self.head((self.joined(torch.cat([a, b], 1)) + a).mean((2, 3)))


def bilinear_us(cls: OperatorClass, ci: int, co: int) -> float:
    work = cls.height * cls.width * cls.taps / 1e3
    return 2 + 0.01 * ci * work + 0.02 * co * work + (0 if cls.one_axis else 0.01 * ci * co * work)


def model_of(network: nn.Module, shape: tuple[int, int, int], *, step: int = 16) -> tuple[NetworkLatency, Options]:
    groups = find_groups(network, shape)
    operators = list_operators(network, groups, shape)
    times = {point: bilinear_us(*point) for point in grid_points(operators, groups, step)}
    entries = [Entry(operator=cls, ci=ci, co=co, p10_us=us, p50_us=us, reps=1, kernels="") for (cls, ci, co), us in times.items()]
    latency = NetworkLatency(LatencyTable(TABLE_META, entries), operators, Line(offset_ms=0.01, scale=1.1))
    return latency, {g.name: width_options(g, step=step, floor=0.1) for g in groups}


def random_values(options: Options, seed: int) -> dict[str, dict[int, float]]:
    rng = np.random.default_rng(seed)
    scores = {group: rng.lognormal(rng.normal(0, 0.5), rng.uniform(0.2, 1.0), max(widths)).tolist() for group, widths in options.items()}
    return {group: dict(widths) for group, widths in values_from_scores(scores, options).items()}


def limit_of(latency: NetworkLatency, options: Options, share: float) -> float:
    """Return the milliseconds at a share of the way from the narrowest to the dense network."""
    low, high = latency({g: min(w) for g, w in options.items()}), latency({g: max(w) for g, w in options.items()})
    return low + share * (high - low)


SMALL: dict[str, Callable[[], tuple[NetworkLatency, Options]]] = {
    "residual": lambda: model_of(resnet8(in_channels=3, num_classes=5, width=32), (3, 16, 16)),
    "concatenation": lambda: model_of(Concatenated(), (3, 16, 16)),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_tables_add_up_to_the_latency_of_every_network(name: str) -> None:
    latency, options = SMALL[name]()
    terms, rng = latency.terms(options), np.random.default_rng(0)
    for _ in range(50):
        widths = {group: int(rng.choice(choices)) for group, choices in options.items()}
        choice = terms.choice(widths)
        assert terms.widths_at(choice) == widths
        assert terms.total(choice) == pytest.approx(latency(widths))
        for group in range(len(options)):
            along, there = terms.along(choice, group), choice.copy()
            there[group] = 0
            assert along[0] - along[choice[group]] == pytest.approx(terms.total(there) - terms.total(choice))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8])
def test_search_bound_and_milp_agree_with_brute_force(name: str, budget: float) -> None:
    latency, options = SMALL[name]()
    values, terms = random_values(options, 1), latency.terms(options)
    limit = limit_of(latency, options, budget)
    problem = Problem.of(values, terms, limit)
    every = (np.array(choice) for choice in product(*(range(len(widths)) for widths in options.values())))
    best = max(problem.value(choice) for choice in every if problem.fits(choice))
    found = select_widths(values, options, latency, limit)
    assert latency(found.widths) <= limit + 1e-12
    assert found.value >= 0.99 * best
    assert found.bound >= best - 1e-9
    exact, proven = solve_exactly(problem)
    assert exact is not None
    assert problem.value(exact) == pytest.approx(best)
    assert proven == pytest.approx(best)


@pytest.mark.parametrize(("make", "gap"), [(resnet50, 0.01), (mobilenet_v2, 0.01), (densenet121, 0.05), (resnet20, 0.03)])
def test_large_networks_are_within_a_certified_gap(make: Callable[..., nn.Module], gap: float) -> None:
    latency, options = model_of(make(in_channels=3, num_classes=10), (3, 64, 64))
    values = random_values(options, 0)
    found = select_widths(values, options, latency, limit_of(latency, options, 0.5))
    assert 0 <= found.gap <= gap


@pytest.mark.parametrize("select", [uniform, global_ranking, one_sided_knapsack])
@pytest.mark.parametrize("name", SMALL)
def test_baselines_stay_within_the_budget_and_below_the_bound(select: Any, name: str) -> None:
    latency, options = SMALL[name]()
    for budget in (0.0, 0.3, 0.5, 1.0):
        problem = Problem.of(random_values(options, 2), latency.terms(options), limit_of(latency, options, budget) + 1e-9)
        choice = select(problem)
        assert problem.fits(choice)
        assert problem.value(choice) <= relax(problem).bound + 1e-9
        assert budget < 1 or (choice == problem.widest).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 0.95))
def test_the_bound_holds_where_tables_are_split(seed: int, budget: float) -> None:
    latency, options = SMALL["residual"]()
    problem = Problem.of(random_values(options, seed), latency.terms(options), limit_of(latency, options, budget))
    whole, largest = relax(problem).bound, bound.LARGEST
    try:
        bound.LARGEST = 8
        assert relax(problem).bound >= whole - 1e-9
    finally:
        bound.LARGEST = largest


def test_an_operator_on_joined_groups_that_is_no_sum_over_them() -> None:
    options = {"a": (1, 2), "b": (1, 2, 3), "c": (1, 2)}
    table = np.array([[float((row // 2) * (column + 1)) for column in range(2)] for row in range(6)])
    term = SumTerm({0: np.array([1, 2]), 1: np.array([1, 2, 3])}, {2: np.arange(2)}, table)
    terms = Terms(options, constant=1.0, unary={"c": np.array([0.1, 0.2])}, sums=[term])
    widths = {"a": 2, "b": 3, "c": 2}
    choice = terms.choice(widths)
    assert terms.total(choice) == pytest.approx(1.2 + table[5, 1])
    assert terms.along(choice, 1) == pytest.approx([table[3, 1], table[4, 1], table[5, 1]])
    assert terms.along(choice, 2) == pytest.approx([0.1 + table[5, 0], 0.2 + table[5, 1]])
    assert terms.neighbours[0] == {1, 2}
    values = {group: {width: float(width) for width in choices} for group, choices in options.items()}
    for limit in (2.2, 3.2, 5.5):
        problem = Problem.of(values, terms, limit)
        every = [np.array(c) for c in product(range(2), range(3), range(2))]
        assert relax(problem).bound >= max(problem.value(c) for c in every if problem.fits(c)) - 1e-9
        assert smallest_latency(terms)[0] == pytest.approx(min(terms.total(c) for c in every))
