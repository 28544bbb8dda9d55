import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.quantization.calibrate import calibrate, settle_batchnorm
from bonsai.stages.quantization.config import MixedConfig
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.mixed import Mixer, Start, fewest_layers, search_layers
from bonsai.stages.quantization.records import Weights
from bonsai.stages.quantization.sensitivity import scan_layers
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.tasks.classification.learning import ClassificationLearning
from bonsai.stages.training.config import TrainConfig

SHAPE = (1, 16, 16)
LAYERS = tuple("abcdefgh")


def trained_like() -> nn.Module:
    torch.manual_seed(0)
    network = resnet8(in_channels=1, num_classes=10, width=8)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics as a long training leaves them
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
    quantizers = Quantizers(dialect=dialect, weight_bits=8, kept_float=kept)
    twin = copy.deepcopy(network)
    made = insert_quantizers(twin, SHAPE, quantizers)
    images = [torch.randn(32, *SHAPE)]
    calibrate(made, images)
    start = Start("ptq", {name: value.clone() for name, value in made.state_dict().items()})
    return Mixer(twin, made, SHAPE, quantizers, images), start, made


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
    found = scan_layers(mixer.layers, lambda layers: mixer.network(start, layers), network, torch.randn(100, *SHAPE), ClassificationLearning(TrainConfig()))
    assert {one.layer for one in found} == set(mixer.layers)
    assert {one.layer for one in found[:2]} == {"layer2.0.conv2", "layer3.0.conv2"}
    assert found[1].noise > 10 * abs(found[2].noise)
    assert list(found) == sorted(found, key=lambda one: -one.noise)


def test_layers_that_nothing_distinguishes_gain_next_to_nothing() -> None:
    network = trained_like()
    mixer, start, _ = mixer_of(network)
    assert all(
        abs(one.noise) < 0.01
        for one in scan_layers(
            mixer.layers, lambda layers: mixer.network(start, layers), network, torch.randn(100, *SHAPE), ClassificationLearning(TrainConfig())
        )
    )


def agreement(network: nn.Module, other: nn.Module, images: torch.Tensor) -> float:
    with torch.no_grad():
        return float((network.eval()(images).argmax(1) == other.eval()(images).argmax(1)).float().mean())


class Agreeing:
    """Judges a network by how often it agrees with another; with `least`, by that."""

    task, learning = CLASSIFICATION, ClassificationLearning(TrainConfig())

    def __init__(self, other: nn.Module, images: torch.Tensor, least: float | None = None) -> None:
        self._other, self._images, self._least = other, images, least

    def validate(self, network: nn.Module) -> float:
        return agreement(network, self._other, self._images) if self._least is None else self._least


@pytest.mark.parametrize("weights", ["ptq", "qat"])
def test_the_search_keeps_the_sensitive_layer_in_float_and_learned_scales_as_they_are(weights: Weights) -> None:
    network, images = trained_like(), torch.randn(200, *SHAPE)
    make_sensitive(network, "layer2.0.conv2", "layer2.0.bn1")
    mixer, calibrated, made = mixer_of(network)
    start = calibrated._replace(weights=weights)
    whole = agreement(made, network, images)
    found = search_layers(mixer, [start], network, images, MixedConfig(), Agreeing(network, images), lambda reached: reached > whole + 0.02)
    assert found.layers == ("layer2.0.conv2",)
    assert found.outcome == {"kept": "mixed", "weights": weights, "searched": found.layers, "sensitivities": found.sensitivities}
    mixed = mixer.network(start, found.layers)
    assert agreement(mixed, network, images) == found.reached
    scales = {name: value for name, value in mixed.state_dict().items() if name.endswith("scale")}
    same = [torch.equal(value, start.state[name]) for name, value in scales.items()]
    assert all(same) == (weights == "qat")


def test_the_search_tries_the_next_start_where_the_first_does_not_get_there() -> None:
    network, images = trained_like(), torch.randn(50, *SHAPE)
    mixer, good, _ = mixer_of(network)
    lost = Start("qat", {name: torch.zeros_like(value) if name.startswith("layer1") else value for name, value in good.state.items()})
    found = search_layers(mixer, [lost, good], network, images, MixedConfig(max_layers=1), Agreeing(network, images), lambda reached: reached > 0.5)
    assert found.start is good
    assert len(found.layers) == 1
    vain = search_layers(mixer, [lost, good], network, images, MixedConfig(max_layers=1), Agreeing(network, images, least=0.0), lambda reached: reached > 0.5)
    assert vain.start is lost
    assert vain.outcome["kept"] == "qat"


def test_float_batchnorm_settles_on_the_batches_and_folded_statistics_stay() -> None:
    mixer, start, _ = mixer_of(trained_like())
    made = mixer.network(start, ("layer1.0.conv1",))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    images = torch.randn(64, *SHAPE) * 3
    settle_batchnorm(made, [images])
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"layer1.0.bn1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    seen: list[torch.Tensor] = []
    made.get_submodule("layer1.0.bn1").register_forward_hook(lambda *call: seen.append(call[2]))
    made.eval()(images)
    torch.testing.assert_close(seen[0].std((0, 2, 3)), made.get_submodule("layer1.0.bn1").weight.detach().abs(), atol=0.05, rtol=0)


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
