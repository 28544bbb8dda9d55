import copy

import pytest
import torch
from torch import nn

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.quantization.calibrate import layers_of
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.keeping import count_float_convolutions, layers_to_keep
from bonsai.stages.quantization.quantizers import ActivationQuantizer

SHAPE = (1, 16, 16)


def network() -> nn.Module:
    torch.manual_seed(0)
    return resnet8(in_channels=1, num_classes=10)


def quantisers_with(*kept: str, dialect: str = "ort") -> set[str]:
    made = insert_quantizers(network(), SHAPE, Quantizers(dialect=dialect, weight_bits=8, kept_float=kept))
    return {name for name, module in made.named_modules() if isinstance(module, ActivationQuantizer)}


def test_globs_name_layers_and_what_holds_them_in_the_networks_order() -> None:
    assert layers_to_keep(network(), ["fc", "layer2.*.conv1", "layer1"], SHAPE) == ("layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "fc")
    assert layers_to_keep(network(), [], SHAPE) == ()


@pytest.mark.parametrize("given", ["layer1.0.convl", "norm1", "layer4"])
def test_an_unknown_layer_is_refused_before_training_with_those_that_exist(given: str) -> None:
    recipe = load_recipe("resnet-edge", {"quantize.keep_float": [given]})
    with pytest.raises(ConfigError, match=r"quantize\.keep_float: nothing that computes has this name[^$]*layer3\.2\.conv2"):
        inspect_network(recipe, (1, 32, 32), 10)


def test_keeping_everything_in_float_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves nothing to quantise"):
        layers_to_keep(network(), ["*"], SHAPE)


def test_a_kept_layer_stays_as_it_was_with_its_batchnorm() -> None:
    state = Quantizers(dialect="ort", weight_bits=8, kept_float=("layer1.0.conv2", "fc"))
    made = insert_quantizers(network(), SHAPE, state)
    assert type(made.get_submodule("layer1.0.conv2")) is nn.Conv2d
    assert type(made.get_submodule("layer1.0.bn2")) is nn.BatchNorm2d
    assert type(made.get_submodule("fc")) is nn.Linear
    assert len(layers_of(made)) == 8
    assert count_float_convolutions(made, state, SHAPE) == (1, 1)


@pytest.mark.parametrize(
    ("kept", "gone"),
    [
        ("conv1", {"quantize_x"}),  # read by it alone
        ("fc", set()),  # the pooling computes in INT8
        ("layer1.0.conv2", set()),  # what it reads is quantised for the convolution before it, what it makes for the addition behind it
        ("layer2.0.conv1", set()),  # the shortcut reads the same tensor
    ],
)
def test_no_tensor_is_quantised_for_a_kept_layer_alone(kept: str, gone: set[str]) -> None:
    assert quantisers_with() - quantisers_with(kept) == gone


@pytest.mark.parametrize("dialect", ["ort", "trt"])
def test_a_quantisers_name_does_not_depend_on_what_stays_in_float(dialect: str) -> None:
    layers = layers_to_keep(network(), ["conv1", "layer*"], SHAPE)
    everything = quantisers_with(dialect=dialect)
    for count in range(len(layers)):
        assert quantisers_with(*layers[:count], dialect=dialect) <= everything
        assert quantisers_with(layers[count], dialect=dialect) <= everything


def test_the_float_network_learns_what_the_quantised_one_learns() -> None:
    twin = network()
    before = copy.deepcopy(twin)
    made = insert_quantizers(twin, SHAPE, Quantizers(dialect="ort", weight_bits=8))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1.0)
    made.train()(torch.randn(8, *SHAPE))
    for name, value in before.state_dict().items():
        assert not torch.equal(value, twin.state_dict()[name]), name
