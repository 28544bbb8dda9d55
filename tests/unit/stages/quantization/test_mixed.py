import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stages.artifacts import QuantizerState
from stages.models.cifar_resnet import resnet8
from stages.quantization.calibrate import calibrate
from stages.quantization.insert import insert_quantizers
from stages.quantization.mixed import Mixer, Start, fewest_layers
from stages.quantization.sensitivity import scan_layers

SHAPE = (1, 16, 16)
LAYERS = tuple("abcdefgh")


def trained_like() -> nn.Module:
    torch.manual_seed(0)
    network = resnet8(in_channels=1, num_classes=10, width=8)
    for _ in range(3):
        network(torch.randn(32, *SHAPE))
    return network


@torch.no_grad()
def make_sensitive(network: nn.Module, layer: str, bn: str) -> None:
    """Kill a channel that a convolution reads and give it a huge weight there: nothing changes in float, and at 8 bits all other weights round to 0."""
    network.get_submodule(bn).weight[0] = 0
    network.get_submodule(bn).bias[0] = 0
    network.get_submodule(layer).weight[:, 0] = 1000


def mixer_of(network: nn.Module, dialect: str = "ort", kept: tuple[str, ...] = ()) -> tuple[Mixer, Start, torch.fx.GraphModule]:
    quantizers = QuantizerState(dialect=dialect, weight_bits=8, kept_float=kept)
    twin = copy.deepcopy(network)
    made = insert_quantizers(twin, SHAPE, quantizers)
    images = [torch.randn(64, *SHAPE)]
    calibrate(made, images)
    start = Start("ptq", {name: value.clone() for name, value in made.state_dict().items()}, images)
    return Mixer(twin, made, SHAPE, quantizers), start, made


@pytest.mark.parametrize("dialect", ["ort", "trt"])
def test_a_network_with_nothing_more_in_float_computes_the_same(dialect: str) -> None:
    mixer, start, made = mixer_of(trained_like(), dialect)
    images = torch.randn(8, *SHAPE)
    with torch.no_grad():
        assert torch.equal(mixer.network(start, ()).eval()(images), made.eval()(images))


def test_layers_are_added_to_those_that_the_recipe_keeps_in_the_networks_order() -> None:
    mixer, start, _ = mixer_of(trained_like(), kept=("layer3.0.conv1",))
    assert "layer3.0.conv1" not in mixer.layers
    assert mixer.quantizers(("fc", "conv1")).kept_float == ("conv1", "layer3.0.conv1", "fc")
    assert type(mixer.network(start, ("fc",)).get_submodule("fc")) is nn.Linear
    assert type(mixer.network(start, ("fc",)).get_submodule("layer3.0.conv1")) is nn.Conv2d


@pytest.mark.parametrize("dialect", ["ort", "trt"])
def test_the_scan_finds_the_layers_that_were_made_sensitive(dialect: str) -> None:
    network = trained_like()
    make_sensitive(network, "layer2.0.conv2", "layer2.0.bn1")
    make_sensitive(network, "layer3.0.conv2", "layer3.0.bn1")
    mixer, start, _ = mixer_of(network, dialect)
    found = scan_layers(mixer.layers, lambda layers: mixer.network(start, layers), network, torch.randn(100, *SHAPE))
    assert {one.layer for one in found} == set(mixer.layers)
    assert {one.layer for one in found[:2]} == {"layer2.0.conv2", "layer3.0.conv2"}
    assert found[1].noise > 10 * abs(found[2].noise)
    assert list(found) == sorted(found, key=lambda one: -one.noise)


def test_layers_that_nothing_distinguishes_gain_next_to_nothing() -> None:
    network = trained_like()
    mixer, start, _ = mixer_of(network)
    assert all(abs(one.noise) < 0.01 for one in scan_layers(mixer.layers, lambda layers: mixer.network(start, layers), network, torch.randn(100, *SHAPE)))


@given(st.sets(st.sampled_from(LAYERS), min_size=1))
def test_the_search_finds_exactly_the_layers_that_are_needed(needed: set[str]) -> None:
    asked: list[tuple[str, ...]] = []

    def suffices(layers: tuple[str, ...]) -> bool:
        asked.append(layers)
        return needed <= set(layers)

    assert set(fewest_layers(LAYERS, suffices)) == needed
    assert len(asked) <= 3 + len(LAYERS) + 1
    assert () not in asked


@given(st.integers(1, 8))
def test_any_few_of_equal_layers_do(count: int) -> None:
    assert len(fewest_layers(LAYERS, lambda layers: len(layers) >= count)) == count


def test_the_search_gives_up_after_one_look_where_all_are_too_few() -> None:
    asked: list[tuple[str, ...]] = []
    assert fewest_layers(LAYERS, lambda layers: bool(asked.append(layers))) == ()
    assert asked == [LAYERS]
