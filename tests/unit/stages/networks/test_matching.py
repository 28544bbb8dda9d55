"""Weights from outside and the network that they are for."""

import pytest
import torch
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.matching import Matched, match_weights


def network(classes: int = 10, channels: int = 3, width: int = 8) -> nn.Module:
    return resnet8(in_channels=channels, num_classes=classes, width=width)


def refusal(tensors: dict[str, torch.Tensor], classes: int = 10, channels: int = 3) -> str:
    with pytest.raises(ConfigError) as refused:
        match_weights(network(classes, channels), tensors, classes)
    return str(refused.value)


def same(found: Matched, expected: dict[str, torch.Tensor]) -> bool:
    return found.tensors.keys() == expected.keys() and all(torch.equal(value, expected[name]) for name, value in found.tensors.items())


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module."])
def test_names_may_have_a_prefix_in_common(prefix: str) -> None:
    state = network().state_dict()
    found = match_weights(network(), {prefix + name: value for name, value in state.items()}, 10)
    assert (found.prefix, found.fresh) == (prefix, ())
    assert same(found, state)


def test_a_prefix_that_the_network_has_itself_stays() -> None:
    wrapped = nn.Sequential()
    wrapped.add_module("module", network())
    assert match_weights(wrapped, wrapped.state_dict(), 10).prefix == ""


def test_a_head_of_another_size_keeps_the_networks_own_weights() -> None:
    state, own = network(classes=1000).state_dict(), network()
    found = match_weights(own, state, 10)
    assert found.fresh == ("fc",)
    expected = {name: own.state_dict()[name] if name.startswith("fc.") else value for name, value in state.items()}
    assert same(found, expected)


def test_batch_norms_counter_may_be_missing() -> None:
    state = {name: value for name, value in network().state_dict().items() if not name.endswith("num_batches_tracked")}
    assert match_weights(network(), state, 10).fresh == ()


def test_missing_and_unexpected_names_are_listed() -> None:
    state = network().state_dict()
    weight = state.pop("conv1.weight")
    said = refusal({**state, **{f"stem{number}.weight": weight for number in range(12)}})
    assert said.startswith("model.weights: the weights are not of this network")
    assert "missing: conv1.weight; not in the network: stem0.weight, " in said
    assert "stem9.weight and 2 more" in said
    assert "let model.name and model.options name the network that the weights were saved from" in said


def test_weights_of_another_width_are_refused_with_their_shapes() -> None:
    said = refusal(network(width=16).state_dict())
    assert said.startswith("model.weights: weights of other shapes than the network's")
    assert "conv1.weight (16, 3, 3, 3), the network's (8, 3, 3, 3)" in said
    assert " more" in said


def test_another_number_of_channels_is_told_with_what_to_set() -> None:
    said = refusal(network(channels=3).state_dict(), channels=1)
    assert said.startswith("model.weights: the first layer takes another number of channels")
    assert "data.options.channels=3" in said


def test_an_inner_layer_of_as_many_outputs_as_classes_is_no_head() -> None:
    state = network(width=8).state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(5, *state["layer1.0.conv1.weight"].shape[1:])
    with pytest.raises(ConfigError, match="weights of other shapes"):
        match_weights(network(classes=10, width=8), state, 10)
