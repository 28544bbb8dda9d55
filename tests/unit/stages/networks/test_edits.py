"""Edits as data: put together, written as JSON, and done to tensors and networks."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import nn

from bonsai.stages.networks.edits.channels import carry, keep_channels
from bonsai.stages.networks.edits.records import Axis, Edit, Indices, KeepChannels, Quantizers

SHAPES = {"conv.weight": (6, 5, 3), "bn.weight": (6,), "bn.running_mean": (6,), "fc.weight": (4, 6), "step": ()}
DIMENSIONS = [(name, axis) for name, shape in SHAPES.items() for axis in range(len(shape))]


def tensors_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.arange(float(torch.Size(shape).numel())).reshape(shape) for name, shape in shapes.items()}


@st.composite
def cuts(draw: st.DrawFn, shapes: Mapping[str, tuple[int, ...]]) -> KeepChannels:
    by_axis: dict[Axis, Indices] = {}
    for name, axis in draw(st.lists(st.sampled_from(DIMENSIONS), unique=True)):
        by_axis[name, axis] = tuple(sorted(draw(st.sets(st.integers(0, shapes[name][axis] - 1), min_size=1))))
    return KeepChannels.of(by_axis, {f"{name}.{axis}": len(indices) for (name, axis), indices in by_axis.items()})


@given(st.data())
def test_two_cuts_as_one_keep_what_they_keep_one_after_the_other(data: st.DataObject) -> None:
    first = data.draw(cuts(SHAPES))
    once = carry(tensors_of(SHAPES), first)
    second = data.draw(cuts({name: tuple(value.shape) for name, value in once.items()}))
    twice, together = carry(once, second), carry(tensors_of(SHAPES), first.then(second))
    assert all(torch.equal(value, together[name]) for name, value in twice.items())
    assert first.then(second).sizes == first.sizes | second.sizes


@given(cuts(SHAPES))
def test_an_edit_is_the_same_after_json(edit: KeepChannels) -> None:
    assert TypeAdapter(Edit).validate_json(edit.model_dump_json()) == edit
    assert KeepChannels.of(edit.by_axis(), edit.sizes) == edit


def test_edits_are_told_apart_by_their_kind() -> None:
    adapter = TypeAdapter[Edit](Edit)
    quantizers = Quantizers(dialect="ort", weight_bits=8)
    assert adapter.validate_python({"kind": "keep_channels"}) == KeepChannels()
    assert adapter.validate_python(quantizers.model_dump()) == quantizers
    with pytest.raises(ValidationError, match="'drop_block' found using 'kind' does not match"):
        adapter.validate_python({"kind": "drop_block"})


def test_channels_that_left_together_are_written_once() -> None:
    edit = KeepChannels.of({("a.weight", 0): (0, 2), ("a.weight", 1): (0, 2), ("b.bias", 0): (0, 2), ("b.weight", 0): (1,)}, {})
    assert [(kept.indices, kept.axes) for kept in edit.kept] == [((0, 2), {"a.weight": (0, 1), "b.bias": (0,)}), ((1,), {"b.weight": (0,)})]


def test_what_goes_with_parameters_keeps_what_they_keep() -> None:
    edit = KeepChannels.of({("weight", 0): (1, 3), ("weight", 1): (0, 2)}, {})
    given = {"weight": torch.arange(12.0).reshape(4, 3), "other": torch.arange(4.0), "step": torch.tensor(7.0)}
    assert {name: value.tolist() for name, value in carry(given, edit).items()} == {
        "weight": [[3.0, 5.0], [9.0, 11.0]],
        "other": [0.0, 1.0, 2.0, 3.0],
        "step": 7.0,
    }
    assert carry({"weight": torch.tensor(5.0)}, edit)["weight"] == 5  # the step count of a parameter


def test_a_network_is_cut_with_what_its_modules_say_of_themselves() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    network[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    names = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    axes = {(name, 0): (1, 2, 3) for name in names} | {("2.weight", 1): (1, 2, 3)}
    keep_channels(network, KeepChannels.of(axes, {"0.out_channels": 3, "1.num_features": 3, "2.in_channels": 3}))
    assert torch.equal(network[2].weight, before["2.weight"][:, 1:])
    assert torch.equal(network[1].running_var, before["1.running_var"][1:])
    assert [name for name, parameter in network.named_parameters() if not parameter.requires_grad] == ["0.bias"]
    assert set(network.state_dict()) == set(before)
    assert str(network[0]) == "Conv2d(1, 3, kernel_size=(3, 3), stride=(1, 1))"
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 2, 4, 4)
