"""Operators that share groups in part, or lose whole groups of channels, do the work and take the time of the network that is really cut."""

import copy
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partly_coupled import NETWORKS
from torch import nn

from bonsai.profiles.latency import Entry, LatencyTable, Line, TableMeta
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import Group, first_channels
from bonsai.stages.pruning.limits import width_options, width_step
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.selection.bound import relax, smallest_latency
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operator_records import Operator, count_macs_at, weight_channels, with_groups
from bonsai.stages.selection.operators import read_operators
from bonsai.stages.selection.problem import Problem
from bonsai.stages.selection.terms import Options
from bonsai.stages.selection.values import reciprocal_values
from bonsai.stages.steps.characterize import grid_points

SHAPE = (3, 16, 16)
STEP = 8
META = {"source": "measured", "device": "d", "runtime": "r", "runtime_version": "1", "precision": "fp32", "batch": 1, "threads": 1, "step": STEP}
TABLE_META = TableMeta.model_validate({**META, "clock": "c", "statistic": "s", "date": "d"})


@cache
def read(name: str) -> tuple[nn.Module, tuple[Group, ...], tuple[Operator, ...]]:
    network = NETWORKS[name]().eval()
    groups = find_groups(network, SHAPE)
    operators, unseen = read_operators(network, groups, SHAPE)
    assert unseen == ()
    return network, groups, operators


def operator_of(name: str, module: str) -> Operator:
    return next(operator for operator in read(name)[2] if operator.module == module)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_the_work_is_that_of_the_cut_network_at_any_widths(name: str, data: st.DataObject) -> None:
    network, groups, operators = read(name)
    widths = {group.name: data.draw(st.integers(1, group.width), group.name) for group in groups}
    narrowed = copy.deepcopy(network)
    cut(narrowed, groups, first_channels(widths))
    assert count_macs_at(operators, widths) == count_macs(narrowed, SHAPE)
    shapes = {
        module: (narrowed.get_submodule(module).weight.shape[1], narrowed.get_submodule(module).weight.shape[0])
        for module in weight_channels(operators, widths)
    }
    assert weight_channels(operators, widths) == shapes
    again = {operator.module: operator for operator in read_operators(narrowed, (), SHAPE)[0]}
    for operator in operators:
        assert operator.channels(widths) == again[operator.module].channels({})


def test_outputs_of_several_groups_and_halves_say_their_positions() -> None:
    assert operator_of("Pieces", "stem").outputs == (("stem[0]", 1), ("stem[12]", 1))
    assert operator_of("CrossStage", "first").outputs == (("first", 2),)
    assert operator_of("CrossStage", "inner.0.0").inputs == (("first", 1),)
    assert operator_of("CrossStage", "last").inputs == (("first", 4),)


def test_groups_that_leave_whole_make_the_work_linear() -> None:
    many, few = operator_of("Grouped", "many"), operator_of("Grouped", "few")
    assert (many.operator.group_channels, many.inputs, many.outputs) == ((4, 8), (("stem", 4),), ())
    assert (many.operator.num_groups(8), many.operator.outputs(8), many.operator.macs(8, 16)) == (2, 16, 16 * 4 * 9 * 8 * 8)
    assert (few.operator.groups, few.operator.group_channels, few.inputs, few.outputs) == (2, None, (("between", 2),), (("few", 4),))
    assert operator_of("Grouped", "up").operator.group_channels == (2, 1)
    assert operator_of("Grouped", "depthwise").operator.depthwise


def test_heads_of_torchs_attention_leave_whole_in_both_products() -> None:
    products = [operator for operator in read("Attention")[2] if operator.operator.op == "matmul"]
    assert [(each.operator.group_channels, each.inputs) for each in products] == [((8, 16), (("qkv", 8),)), ((16, 8), (("qkv", 16),))]


def table_us(cls: OperatorClass, ci: int, co: int) -> float:
    """Return a time that bends at the grid's middle, so that it is no sum over groups."""
    return 2 + cls.macs(ci, co) / 1e4 + 0.3 * ci**1.5 + 0.2 * co**1.5


@cache
def latency_of(name: str) -> tuple[NetworkLatency, Options]:
    _, groups, operators = read(name)
    entries = [
        Entry(operator=p[0], ci=p[1], co=p[2], p10_us=table_us(*p), p50_us=table_us(*p), reps=1, kernels="") for p in grid_points(operators, groups, STEP)
    ]
    options = {group.name: width_options(group, step=STEP, floor=0.1) for group in groups}
    return NetworkLatency(LatencyTable(TABLE_META, entries), operators, Line(offset_ms=0.01, scale=1.1)), options


def random_values(options: Options, seed: int) -> dict[str, dict[int, float]]:
    rng = np.random.default_rng(seed)
    return {group: dict(zip(widths, np.cumsum(rng.random(len(widths))).tolist(), strict=True)) for group, widths in options.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_tables_are_exact_at_every_choice(name: str) -> None:
    latency, options = latency_of(name)
    terms, rng = latency.terms(options), np.random.default_rng(0)
    for _ in range(30):
        widths = {group: int(rng.choice(choices)) for group, choices in options.items()}
        choice = terms.choice(widths)
        assert terms.total(choice) == pytest.approx(latency(widths))
        assert terms.between(np.array([list(widths.values())], dtype=float))[0] == pytest.approx(latency(widths))
        for group, choices in enumerate(options.values()):
            moved = [choice.copy() for _ in choices]
            for index, there in enumerate(moved):
                there[group] = index
            along = terms.along(choice, group)
            assert along - along[choice[group]] == pytest.approx([terms.total(there) - terms.total(choice) for there in moved])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bound_lies_above_every_network_within_the_budget(name: str) -> None:
    latency, options = latency_of(name)
    terms, rng = latency.terms(options), np.random.default_rng(1)
    every = [np.array([rng.integers(len(choices)) for choices in options.values()]) for _ in range(200)]
    for term in terms.sums:
        scope, table = term.lower_bound()
        assert all(table[tuple(choice[group] for group in scope)] <= term.total(choice) + 1e-12 for choice in every)
    problem = Problem.of(random_values(options, 0), terms, float(np.median([terms.total(choice) for choice in every])))
    assert relax(problem).bound >= max(problem.value(choice) for choice in every if problem.fits(choice)) - 1e-9
    assert smallest_latency(terms)[0] <= min(terms.total(choice) for choice in every) + 1e-12


def test_outputs_of_several_groups_are_a_term_of_their_own_where_the_time_bends() -> None:
    latency, options = latency_of("Pieces")
    scopes = [{latency.terms(options).groups[group] for group in term.groups} for term in latency.terms(options).sums]
    assert {"stem[0]", "stem[12]"} in scopes


def test_every_operator_of_a_grid_has_a_time_at_every_option_without_rounding_up_whole_groups() -> None:
    latency, options = latency_of("Grouped")
    many = operator_of("Grouped", "many").operator
    one, two, all_six = (latency.table.lookup_ms(many, 4 * groups, 8 * groups) for groups in (1, 2, 6))
    assert one < two < all_six
    heads = [operator for operator in read("Attention")[2] if ("qkv", 1) in operator.inputs]
    for operator in heads:  # on a map for every head
        times = [latency_of("Attention")[0].table.lookup_ms(operator.operator, *operator.channels({"qkv": width})) for width in (1, 2, 3)]
        assert times == sorted(times)
        assert times[0] < times[2]
    assert options["stem"] == (2, 4, 6)


@pytest.mark.parametrize(
    ("name", "group", "step", "options"),
    [
        ("Attention", "qkv", 1, (1, 2, 3)),  # of 3 x 8 positions
        ("Attention", "patch", 8, (8, 16, 24)),
        ("Attention", "up", 4, (4, 8, 12, 16, 20, 24, 28, 32)),  # halves
        ("Grouped", "stem", 2, (2, 4, 6)),  # groups of 4
        ("Pieces", "stem[0]", 8, (8, 12)),
    ],
)
def test_a_devices_step_is_met_by_the_positions_of_a_layer(name: str, group: str, step: int, options: tuple[int, ...]) -> None:
    found = next(each for each in read(name)[1] if each.name == group)
    assert width_step(found, STEP) == step
    assert width_options(found, step=STEP, floor=0.01) == options


def test_groups_that_may_not_be_pruned_stay_in_the_classes_and_count_as_fixed() -> None:
    _, groups, operators = read("Grouped")
    full = {group.name: group.width for group in groups}
    left = with_groups(operators, {"between", "few"})
    many = next(operator for operator in left if operator.module == "many")
    assert (many.operator.group_channels, many.inputs, many.fixed_inputs, many.full_widths) == ((4, 8), (), 24, ())
    assert [operator.operator for operator in left] == [operator.operator for operator in operators]
    assert count_macs_at(left, {"between": full["between"], "few": full["few"]}) == count_macs_at(operators, full)


def test_a_group_counts_twice_in_what_reads_and_writes_it() -> None:
    _, _, operators = read("Grouped")
    options = {"stem": (2, 4), "point": (6, 12), "between": (4, 8), "few": (4, 8)}
    scores = {"stem": [1.0] * 6, "point": [1.0] * 12, "between": [1.0] * 8, "few": [1.0] * 8}
    used = with_groups(operators, set(options))
    found = reciprocal_values(scores, options, used)
    assert found["stem"] == {2: -12.0, 4: -6.0}  # the first convolution, the grouped one twice, what reads it
    assert found["point"] == {6: -8.0, 12: -4.0}
