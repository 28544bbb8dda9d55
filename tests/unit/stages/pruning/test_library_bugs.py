"""What Torch-Pruning and its peers get wrong does not happen in Bonsai.

Numbers are those of the notes on Torch-Pruning 1.6.1; #n is an issue of VainF/Torch-Pruning. Tests without a file are below.

| the bug | the test |
|---|---|
| 1: a group below the global threshold is skipped | test_a_group_of_least_value_is_cut_to_its_floor |
| 1, #448: the limit of a layer's ratio is ignored, layers collapse | the same, test_no_width_is_below_the_floor_or_off_the_step |
| 2, #416, #417: ties prune nothing, silently | test_ties_are_cut_to_exactly_the_widths_asked_for |
| 2: a rounding step above a layer's width prunes nothing, silently | test_selection: test_options_are_multiples_above_the_floor_and_the_full_width |
| 3: rounding over-prunes narrow layers | test_no_width_is_below_the_floor_or_off_the_step |
| 4, peers: a mistyped layer name is ignored | test_surgery: test_an_impossible_cut_names_the_group |
| 4: the network is left in evaluation mode | test_modes_are_left_as_they_were |
| 4: frozen parameters are not pruned, or thawed | test_a_wholly_frozen_network_is_cut_and_stays_frozen, |
| | test_surgery: test_frozen_parameters_stay_frozen_and_are_cut_too |
| 5, #140, peers: the optimizer keeps dead parameters | test_removal: all, above all test_an_optimizer_of_dead_parameters_is_noticed |
| 5: an average of the weights breaks | test_removal: test_the_training_follows_its_channels_through_the_cut |
| 5: channels_last is lost | test_weights_and_moments_stay_channels_last |
| 6, #363, #409: a pruned network does not load with weights_only | test_a_pruned_network_is_json_and_safetensors, |
| | integration/test_whole_path: test_a_pruned_network_loads_bit_equal_in_a_fresh_process |
| 6: the history lacks the number of heads | test_what_cannot_be_cut_rightly_is_refused_with_a_reason [attention] |
| 7: wrong channels behind a channel shuffle | test_surgery: test_both_halves_of_a_channel_shuffle_lose_the_same_channels |
| 7: view(-1, const) crashes | test_what_cannot_be_cut_rightly_is_refused_with_a_reason |
| 7: PixelShuffle and grouped convolutions crash or are cut wrongly | test_any_choice_of_channels_can_be_cut_from_what_is_not_refused |
| 7: a cut that fits by luck | test_any_choice_of_channels_can_be_cut_from_what_is_not_refused |
| 7: zero-initialised layers hide a wrong cut | test_zero_initialised_layers_do_not_hide_a_wrong_cut |
| 8, #291, peers: pruning after quantisation crashes | test_a_network_is_cut_before_it_is_quantised |
| 9: NaN where scores are equal, errors at grouped and transposed convolutions | test_scores_are_numbers_whatever_the_weights, test_layers |
| 10: the library tells a wrong version | test_the_version_of_the_library_is_that_of_its_distribution |
| peers: masks are not enforced, all zeroed channels regrow | test_soft |
| 4, peers: layers named to be kept are cut | test_limits |
| more is cut than asked for, silently | test_any_choice_of_channels_can_be_cut_from_what_is_not_refused [halves] |
| a batch of two is unpacked into two arguments | test_the_network_is_traced_with_one_batch |
| the check of a cut passes NaN | test_a_network_of_nan_does_not_pass_the_check |
| peers: a target of 0.50 MACs ends at 0.39; a block size above 1 crashes | test_a_budget_is_used_up_and_kept |
| #38, #97, #382: fewer operations, but no faster | test_selection: test_the_closed_loop_ends_within_the_budget_when_the_table_is_wrong, |
| | integration/test_whole_path: test_the_engine_is_within_its_budget_smaller_and_runs_as_int8 |
"""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from cuttable import CUT, REFUSED, SHAPE, Call, Net
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from bonsai.profiles.latency import LatencyTable, Line
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.source import PreparedImages
from bonsai.stages.networks.checkpoints import build, save_tensors
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.networks.edits.records import KeepChannels, Quantizers
from bonsai.stages.networks.registry import to_channels_last
from bonsai.stages.pruning.coupling.editing import groups_left
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.criteria import Normalisation
from bonsai.stages.pruning.groups import Group, Member, first_channels
from bonsai.stages.pruning.limits import width_options
from bonsai.stages.pruning.pruner import Plan
from bonsai.stages.pruning.removal import Removal
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.scores import WEIGHT_CRITERIA, Scores, best_channels, normalise, weight_scores
from bonsai.stages.pruning.statistics import BatchStatistics
from bonsai.stages.pruning.surgery import check_cut, cut
from bonsai.stages.pruning.trial import refused_groups
from bonsai.stages.selection.latency import NetworkLatency
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.selection.search import select_widths
from bonsai.stages.selection.values import values_from_scores
from bonsai.stages.steps.prune import prune
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.classification.learning import ClassificationLearning
from bonsai.stages.training.batches import Batches
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.loop import train_steps
from bonsai.stages.training.state import TrainState

LEARNING = ClassificationLearning(TrainConfig())

REASONS = r"not the same as zeroing|does not run without|go with some that must stay"


def seeded(make: Callable[[], nn.Module]) -> tuple[nn.Module, tuple[Group, ...]]:
    torch.manual_seed(0)
    network = make()
    return network, find_groups(network, SHAPE)


class MacTable(LatencyTable):
    """Multiply-accumulates instead of milliseconds: a budget that can be checked by counting."""

    def __init__(self) -> None:
        pass

    def lookup_ms(self, operator: OperatorClass, ci: Any, co: Any) -> Any:
        return operator.macs(ci, co) + 0 * ci * co


def macs_of(network: nn.Module, groups: tuple[Group, ...]) -> NetworkLatency:
    return NetworkLatency(MacTable(), list_operators(network, groups, SHAPE), Line())


# 7: cut wrongly without a word, or an exception
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # Torch-Pruning asks a parametrised weight for it
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_cut_rightly_is_refused_with_a_reason(name: str) -> None:
    make, expected = REFUSED[name]
    refused = refused_groups(*seeded(make), SHAPE)
    assert list(refused) == expected
    assert all(re.search(REASONS, reason) for reason in refused.values())


# 7: a choice that is regular fits grouped layers by luck
@pytest.mark.parametrize("name", CUT)
def test_any_choice_of_channels_can_be_cut_from_what_is_not_refused(name: str) -> None:
    make, expected = CUT[name]
    network, groups = seeded(make)
    assert len(groups) == expected
    assert refused_groups(network, groups, SHAPE) == {}
    for _ in range(4):
        scores = {g.name: torch.rand(g.width) for g in groups}
        widths = {g.name: int(torch.randint(1, g.width + 1, ())) for g in groups}
        kept, pruned = best_channels(scores, widths), copy.deepcopy(network)
        check_cut(network, pruned, cut(pruned, groups, kept), SHAPE)
        left = groups_left(groups, kept)
        assert {g.name: g.width for g in left} == widths
        assert pruned(torch.zeros(2, *SHAPE)).shape == (2, 5)
        again = best_channels({g.name: torch.rand(g.width) for g in left}, {g.name: -(-g.width // 2) for g in left})
        check_cut(copy.deepcopy(pruned), pruned, cut(pruned, left, again), SHAPE)


# 7: a last gamma or a classifier of zeros makes every cut look right
def test_zero_initialised_layers_do_not_hide_a_wrong_cut() -> None:
    network, groups = seeded(lambda: Net(8, Call(lambda x: x.reshape(-1, 8, 256).unsqueeze(3)), 8))
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    assert list(refused_groups(network, groups, SHAPE)) == ["first"]
    assert not network.head.weight.any()


# a choice among the channels of a sum could empty one of the layers that are concatenated: each has channels of its own in it
def test_a_sum_with_a_concatenation_keeps_channels_of_every_part() -> None:
    _, groups = seeded(CUT["partial sum"][0])
    parts = [group for group in groups if any(member.module == "middle.layers.0" and member.side == "out" for member in group.members)]
    assert [group.width for group in parts] == [4, 6]


# a single tensor as example is tried as the list of the arguments first
def test_the_network_is_traced_with_one_batch() -> None:
    class Optional(Net):
        def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
            seen.append((x.shape, other))
            return super().forward(x)

    seen: list[tuple[torch.Size, torch.Tensor | None]] = []
    find_groups(Optional(8, nn.Identity(), 8), SHAPE)
    assert set(seen) == {(torch.Size((2, *SHAPE)), None)}


# NaN is not larger than any tolerance
def test_a_network_of_nan_does_not_pass_the_check() -> None:
    network, groups = seeded(lambda: Net(8, nn.Identity(), 8))
    nn.init.constant_(network.head.bias, torch.nan)
    pruned = copy.deepcopy(network)
    edit = cut(pruned, groups, {"first": (0, 1)})
    with pytest.raises(ValueError, match="difference nan"):
        check_cut(network, pruned, edit, SHAPE)


# 1: a group that lies below the threshold as a whole is skipped, or collapses
def test_a_group_of_least_value_is_cut_to_its_floor() -> None:
    network, groups = seeded(lambda: resnet8(in_channels=3, num_classes=5))
    scores = weight_scores(network, groups)["magnitude_l2"]
    scores["layer2.0.conv1"] *= 1e-6
    options = {g.name: width_options(g, step=8, floor=0.25) for g in groups}
    values = values_from_scores({name: vector.tolist() for name, vector in scores.items()}, options)
    widths = select_widths(values, options, macs_of(network, groups), 0.5 * count_macs(network, SHAPE)).widths
    assert widths["layer2.0.conv1"] == 8
    cut(network, groups, best_channels(scores, widths))
    assert {g.name: g.width for g in find_groups(network, SHAPE)} == widths


# 3: rounding down takes more from narrow layers than was asked for; 1: a limit per layer is ignored
@given(st.integers(1, 512), st.integers(1, 64), st.floats(0.01, 1))
def test_no_width_is_below_the_floor_or_off_the_step(width: int, step: int, floor: float) -> None:
    options = width_options(Group(name="g", width=width, members=()), step=step, floor=floor)
    assert options[-1] == width
    assert all(option >= floor * width and option % step == 0 for option in options[:-1])


# 2: `score <= threshold` where all scores are equal
@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_ties_are_cut_to_exactly_the_widths_asked_for(criterion: str) -> None:
    network, groups = seeded(lambda: resnet8(in_channels=3, num_classes=5))
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    widths = {g.name: g.width - 1 - position for position, g in enumerate(groups)}
    cut(network, groups, best_channels(weight_scores(network, groups)[criterion], widths))
    assert {g.name: g.width for g in find_groups(network, SHAPE)} == widths


# peers: asked for 0.50 of the multiply-accumulates, got 0.39; a block of more than one channel crashes
@pytest.mark.parametrize("step", [1, 4, 8, 16])
def test_a_budget_is_used_up_and_kept(step: int) -> None:
    network, groups = seeded(lambda: resnet8(in_channels=3, num_classes=5))
    scores = weight_scores(network, groups)["magnitude_l2"]
    options = {g.name: width_options(g, step=step, floor=0.1) for g in groups}
    values = values_from_scores({name: vector.tolist() for name, vector in scores.items()}, options)
    budget = 0.6 * count_macs(network, SHAPE)
    widths = select_widths(values, options, macs_of(network, groups), budget).widths
    cut(network, groups, best_channels(scores, widths))
    assert 0.95 * budget <= count_macs(network, SHAPE) <= budget


# 4: the library's constructor leaves the network in evaluation mode
def test_modes_are_left_as_they_were() -> None:
    network, groups = seeded(lambda: resnet8(in_channels=3, num_classes=5))
    network.train()
    network.bn1.eval()
    before = {name: module.training for name, module in network.named_modules()}
    cut(network, groups, first_channels({"conv1": 5}))
    assert {name: module.training for name, module in network.named_modules()} == before


# 4: nothing is traced where all parameters are frozen
def test_a_wholly_frozen_network_is_cut_and_stays_frozen() -> None:
    network, groups = seeded(lambda: resnet8(in_channels=3, num_classes=5).requires_grad_(False))
    widths = {g.name: 3 for g in groups}
    cut(network, groups, first_channels(widths))
    assert {g.name: g.width for g in find_groups(network, SHAPE)} == widths
    assert not any(parameter.requires_grad for parameter in network.parameters())


# 5: index_select returns rows in the plain layout
def test_weights_and_moments_stay_channels_last(small_model: ModelConfig, digits: Dataset) -> None:
    config = TrainConfig(epochs=2, batch_size=128, lr=0.02)
    state = TrainState(build(small_model, digits.image_shape, 10), config)
    train_steps(state, Batches(PreparedImages(digits, "train"), config), LEARNING, start=0, stop=1, label="t", rate=lambda _: 0.02)
    removal = Removal(state, digits.image_shape, "magnitude_l2", ScheduleConfig(), window=4)
    groups = find_groups(state.network, digits.image_shape)
    removal.pruner.apply(Plan(kept=best_channels(weight_scores(state.network, groups)["magnitude_l2"], {g.name: g.width // 2 for g in groups})))
    parameters = list(removal.state.network.parameters())
    held = [*parameters, *(moments["momentum_buffer"] for moments in removal.state.optimizer.state.values())]
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in held if value.ndim == 4)
    assert len(held) == 2 * len(parameters)


# 6, #363, #409: a network is pickled whole
def test_a_pruned_network_is_json_and_safetensors(small_model: ModelConfig, tmp_path: Path) -> None:
    kept = {"conv1": (0, 2, 5), "layer3.0.conv2": tuple(range(1, 64, 3))}
    network = build(small_model, (1, 16, 16), 10)
    made = cut(network, find_groups(network, (1, 16, 16)), kept)
    to_channels_last(network)
    save_tensors(tmp_path / "weights.safetensors", network.state_dict())
    torch.manual_seed(1)
    loaded = build(small_model.model_copy(update={"seed": 7}), (1, 16, 16), 10, [KeepChannels.model_validate_json(made.model_dump_json())])
    loaded.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(loaded.eval()(images), network.eval()(images))


# 8, #291: pruning a network that holds quantisers crashes
def test_a_network_is_cut_before_it_is_quantised(small_model: ModelConfig) -> None:
    quantizers = Quantizers(dialect="ort", weight_bits=8)
    dense = build(small_model, (1, 16, 16), 10)
    made = cut(dense, find_groups(dense, (1, 16, 16)), {"conv1": (0, 2, 5)})
    network = build(small_model, (1, 16, 16), 10, [made, quantizers])
    assert network.get_submodule("conv1.conv").weight.shape[0] == 3
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 10)


# 9: NaN where scores are equal, and an error at grouped and transposed convolutions
@pytest.mark.parametrize("value", [0.0, 1e-30, -1.0])
@pytest.mark.parametrize("name", [name for name in CUT if name != "weight norm"])  # a direction of zeros is none
def test_scores_are_numbers_whatever_the_weights(name: str, value: float) -> None:
    network, groups = seeded((CUT | REFUSED)[name][0])
    for parameter in network.parameters():
        nn.init.constant_(parameter, value)
    statistics = BatchStatistics(network, groups, window=1)
    network(torch.zeros(2, *SHAPE)).sum().backward()
    statistics.observe()
    require_numbers(weight_scores(network, groups) | statistics.scores(), groups)


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e3]), min_size=4, max_size=4), st.lists(st.sampled_from([0.0, 1.0, -2.0]), min_size=4, max_size=4))
def test_scores_are_numbers_where_some_channels_are_equal(weights: list[float], gammas: list[float]) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    groups = (Group(name="0", width=4, members=tuple(Member(module=m, side="out", indices=(0, 1, 2, 3), channels=(0, 1, 2, 3)) for m in "01")),)
    network[0].weight.data, network[1].weight.data = torch.tensor(weights).reshape(4, 1, 1, 1), torch.tensor(gammas)
    require_numbers(weight_scores(network, groups), groups)


def require_numbers(scores: dict[str, Scores], groups: tuple[Group, ...]) -> None:
    assert len(scores) >= len(WEIGHT_CRITERIA)
    for by_group in scores.values():
        for how in get_args(Normalisation):
            normalised = normalise(by_group, groups, how)
            assert {name: len(vector) for name, vector in normalised.items()} == {g.name: g.width for g in groups}
            assert all(torch.isfinite(vector).all() for vector in normalised.values())


# 10: tp.__version__ says 1.6.0 in 1.6.1
def test_the_version_of_the_library_is_that_of_its_distribution(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {"torch": "2.9.0", "torchvision": "0.24.0"}
    before = store.key(prune, {})
    monkeypatch.setattr("bonsai.stages.store.store.version_of", {**others, "torch-pruning": "1.6.0"}.__getitem__)
    other = store.key(prune, {})
    monkeypatch.setattr("bonsai.stages.store.store.version_of", {**others, "torch-pruning": "1.6.1"}.__getitem__)
    assert len({before, other, store.key(prune, {})}) == 3
