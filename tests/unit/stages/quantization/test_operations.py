import pytest
import torch
from torch import nn
from torch.nn import functional

from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.quantization.calibrate import calibrate, freeze_batchnorm
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.layers import LoneBatchNorm, QuantConvolution
from bonsai.stages.quantization.operations import AveragePool, GatedActivation
from bonsai.stages.quantization.quantizers import ActivationQuantizer


@pytest.mark.parametrize(("kind", "exact"), [("silu", functional.silu), ("hardswish", functional.hardswish)])
def test_a_gated_activation_is_exact_in_trt_and_within_half_a_level_of_its_gate_in_ort(kind: str, exact) -> None:  # type: ignore[no-untyped-def]
    x = torch.linspace(-8, 8, 1001)
    assert torch.equal(GatedActivation(kind, "trt")(x), exact(x))
    error = (GatedActivation(kind, "ort")(x) - exact(x)).abs()
    assert float((error - x.abs() * 0.5001 / 255).max()) <= 0
    assert float(error.max()) > 0.005


def test_gradients_pass_through_the_gate() -> None:
    x = torch.tensor([-1.0, 0.5, 2.0], requires_grad=True)
    y = x.detach().clone().requires_grad_()
    GatedActivation("silu", "ort")(x).sum().backward()
    functional.silu(y).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, y.grad, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("pool", "equals"),
    [
        (nn.AvgPool2d(2), True),
        (nn.AvgPool2d(3, 2, 1), True),
        (nn.AvgPool2d((1, 2), divisor_override=3), True),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), False),
        (nn.AvgPool2d(3, ceil_mode=True), False),
    ],
)
def test_average_pooling_is_a_depthwise_convolution_where_the_padding_counts(pool: nn.AvgPool2d, equals: bool) -> None:
    conv = AveragePool(pool, 4, 8).as_convolution()
    assert (conv is not None) == equals
    if conv is not None:
        x = torch.randn(2, 4, 9, 9)
        torch.testing.assert_close(conv(x), pool(x))


@pytest.mark.parametrize("groups", [1, 4])
def test_a_transposed_convolution_holds_its_batchnorm(groups: int) -> None:
    torch.manual_seed(0)
    conv, bn = nn.ConvTranspose2d(8, 12, 2, 2, groups=groups), nn.BatchNorm2d(12)
    with torch.no_grad():
        for parameter in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
            parameter.uniform_(0.5, 1.5)
    layer = QuantConvolution(conv, bn, 8).eval()
    layer.calibrate()
    x = torch.randn(2, 8, 4, 4)
    with torch.no_grad():
        expected = bn.eval()(conv(x))
        torch.testing.assert_close(layer(x), expected, atol=0.02 * float(expected.std()), rtol=0)


def test_a_lone_batchnorm_stops_moving_once_frozen() -> None:
    network = nn.Sequential(LoneBatchNorm(nn.BatchNorm2d(3), 8)).train()
    images = torch.randn(8, 3, 4, 4) + 5
    network(images)
    moved = network[0].bn.running_mean.clone()
    freeze_batchnorm(network)
    frozen = network(images)
    assert torch.equal(network[0].bn.running_mean, moved)
    torch.testing.assert_close(frozen, network.eval()(images))


class SqueezeExcitation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.fc1, self.fc2, self.head = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.hardswish(self.bn(self.stem(x)), inplace=True)
        gate = functional.hardsigmoid(self.fc2(torch.relu(self.fc1(functional.adaptive_avg_pool2d(x, 1)))))
        x = functional.dropout(gate * x, 0.2, self.training)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("dialect", ["ort", "trt"])
def test_a_training_step_moves_every_scale_that_is_in_use(dialect: str) -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(32, 3, 8, 8), torch.randint(5, (32,))
    network = insert_quantizers(SqueezeExcitation().train(), (3, 8, 8), Quantizers(dialect=dialect, weight_bits=8))  # type: ignore[arg-type]
    calibrate(network, [images])
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    functional.cross_entropy(network.train()(images), labels).backward()
    optimizer.step()
    idle = {f"{name}.scale" for name, m in network.named_modules() if isinstance(m, ActivationQuantizer) and not m.active}
    assert idle == (set() if dialect == "ort" else {"quantize_stem.scale", "quantize_fc2.scale"})
    unmoved = {name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])}
    assert unmoved == idle
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
