import copy

import pytest
import torch
import untraceable
from torch import nn
from torch.nn import functional

from bonsai.profiles.errors import ConfigError
from bonsai.stages.graph.kinds import operation
from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.graph.symbolic import trace_symbolically
from bonsai.stages.graph.trace import trace
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.quantization.calibrate import calibrate, layers_of
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.keeping import quantizable
from bonsai.stages.quantization.quantizers import ActivationQuantizer

SHAPE = (3, 16, 16)


class Asking(nn.Module):
    """What torch.fx cannot follow: a size that Python asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if min(x.shape[-2:]) < 4:
            raise ValueError("give larger images")
        return self.body(x)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class NormWithinActivation(nn.BatchNorm2d):
    """A class of the user's, which torch.fx traces into."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.activation = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(super().forward(x))


class DropPath(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.empty(len(x), 1, 1, 1).bernoulli_(0.5) if self.training else x


class OfOwnClasses(Asking):
    """Layers without a module call of torch's, and what is random in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.path = NormWithinActivation(4), DropPath()

    def body(self, x: torch.Tensor) -> torch.Tensor:
        x = self.path(self.norm(functional.conv2d(x, self.conv.weight, self.conv.bias, padding="same")))
        return functional.dropout(x, 0.5, self.training) + torch.arange(4, device=x.device).reshape(1, 4, 1, 1)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made = untraceable.resnet8(in_channels=3, num_classes=10)
    with torch.no_grad():
        for _ in range(3):
            made(torch.randn(16, *SHAPE))
    return made


@pytest.fixture(scope="module")
def of_own_classes() -> tuple[nn.Module, torch.fx.GraphModule]:
    torch.manual_seed(0)
    made = OfOwnClasses()
    return made, trace(made, SHAPE)


def quantised(network: nn.Module, dialect: Dialect) -> torch.fx.GraphModule:
    made = insert_quantizers(copy.deepcopy(network), SHAPE, Quantizers(dialect=dialect, weight_bits=8))
    calibrate(made, [torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(1))])
    return made.eval()


@pytest.mark.parametrize("dialect", ["ort", "trt"])
def test_a_captured_network_is_quantised_as_its_traceable_twin_is(network: nn.Module, dialect: Dialect) -> None:
    with pytest.raises(ValueError, match="give images"):
        trace_symbolically(network)
    twin = resnet8(in_channels=3, num_classes=10)
    twin.load_state_dict(network.state_dict())
    found, expected = quantised(network, dialect), quantised(twin, dialect)
    assert len(layers_of(found)) == len(layers_of(expected)) == len(quantizable(network, SHAPE)) == 10
    quantizers = [[(m.non_negative, m.fused_in_trt) for m in made.modules() if isinstance(m, ActivationQuantizer)] for made in (found, expected)]
    assert quantizers[0] == quantizers[1]
    assert {k: v.shape for k, v in found.state_dict().items() if "quantize_" not in k} == {
        k: v.shape for k, v in expected.state_dict().items() if "quantize_" not in k
    }
    images = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(found(images), expected(images), rtol=0, atol=0.02 * float(expected(images).std()))


def test_the_graph_calls_the_networks_own_modules(network: nn.Module) -> None:
    traced = trace(network, SHAPE)
    assert traced.get_submodule("layer2.0.conv2") is network.get_submodule("layer2.0.conv2")
    computed = traced.get_submodule("conv1")
    assert (type(computed), computed.padding) == (nn.Conv2d, (1, 1))
    assert computed.weight is network.get_submodule("conv1").weight
    images = torch.randn(5, *SHAPE)
    torch.testing.assert_close(traced.eval()(images), network.eval()(images))
    assert traced.training is network.training is False


def test_layers_of_classes_of_the_users_become_torchs(of_own_classes: tuple[nn.Module, torch.fx.GraphModule]) -> None:
    network, traced = of_own_classes
    kinds = [operation(traced, node) for node in traced.graph.nodes if node.op == "call_module"]
    assert kinds == ["Conv2d", "batch_norm", "relu", "identity", "identity"]
    made = insert_quantizers(copy.deepcopy(network), SHAPE, Quantizers(dialect="ort", weight_bits=8))
    (layer,) = layers_of(made)
    assert layer.bn is not None
    made.eval()(torch.zeros(1, *SHAPE))


def test_what_is_random_follows_the_mode(of_own_classes: tuple[nn.Module, torch.fx.GraphModule]) -> None:
    network, traced = copy.deepcopy(of_own_classes)
    images = torch.randn(4, *SHAPE)
    assert not torch.equal(traced.train()(images), traced(images))
    assert torch.equal(traced.eval()(images), traced(images))
    torch.manual_seed(3)
    expected = network.train()(images)
    torch.manual_seed(3)
    torch.testing.assert_close(traced.train()(images), expected)


def test_statistics_are_the_networks_own_wherever_they_go(of_own_classes: tuple[nn.Module, torch.fx.GraphModule]) -> None:
    network, traced = copy.deepcopy(of_own_classes)
    traced.to(torch.float64)
    assert network.norm.running_mean.dtype == torch.float64
    before = network.norm.running_mean.clone()
    traced.train()(torch.randn(4, *SHAPE, dtype=torch.float64))
    assert not torch.equal(network.norm.running_mean, before)


def test_tensors_are_made_where_the_images_are(of_own_classes: tuple[nn.Module, torch.fx.GraphModule]) -> None:
    _, traced = copy.deepcopy(of_own_classes)
    assert traced.eval().to("meta")(torch.zeros(2, *SHAPE, device="meta")).device.type == "meta"


def test_a_graph_that_torch_fx_mistakes_is_captured_instead() -> None:
    class Mistaken(Asking):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) if isinstance(x, torch.Tensor) else x

    assert [node.op for node in trace(Mistaken(), SHAPE).graph.nodes] == ["placeholder", "call_module", "output"]


class OnValues(Asking):
    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.conv(x).sum() > 0 else -x


class OnOneImage(Asking):
    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) if x.shape[0] == 1 else -self.conv(x)


class ImageByImage(Asking):
    def body(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.conv(image[None]) for image in x])


class ComputedWeights(Asking):
    def body(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.conv.weight - self.conv.weight.mean(), self.conv.bias)


class UsedTwice(Asking):
    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + functional.conv2d(x, self.conv.weight, padding=1, groups=1)


class WithoutGradient(Asking):
    def body(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.conv(x)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (OnValues, r"the forward depends on the values of tensors \(test_capture.py, line \d+\) \(torch.export\)"),
        (OnOneImage, "computes something else for a batch of 1 in evaluation"),
        (ImageByImage, r"the forward depends on the number of images \(test_capture.py, line \d+\)"),
        (WithoutGradient, "a region of its own, as of torch.no_grad"),
    ],
)
def test_what_has_no_graph_is_refused_with_the_reason(kind: type[Asking], reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match=rf"neither by torch.fx nor by torch.export\n.*{kind.__name__}: (.|\n)*{reason}"):
        trace(kind(), SHAPE)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [ComputedWeights, UsedTwice])
def test_a_layer_of_another_kind_stays_a_function(kind: type[Asking]) -> None:
    torch.manual_seed(0)
    network = kind().eval()
    traced = trace(network, SHAPE)
    assert "conv2d" in [operation(traced, node) for node in traced.graph.nodes]
    images = torch.randn(2, *SHAPE)
    torch.testing.assert_close(traced(images), network(images))
