import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.quantizers import ActivationQuantizer, SameGrid

SHAPE = (3, 8, 8)


def quantised(network: nn.Module, dialect: Dialect = "ort") -> fx.GraphModule:
    return insert_quantizers(network.eval(), SHAPE, Quantizers(dialect=dialect, weight_bits=8))


def quantizers(network: fx.GraphModule) -> dict[str, ActivationQuantizer]:
    return {name.removeprefix("quantize_"): m for name, m in network.named_modules() if isinstance(m, ActivationQuantizer)}


def same_grids(network: fx.GraphModule) -> dict[str, str]:
    return {name.removeprefix("same_grid_"): m.quantizer.removeprefix("quantize_") for name, m in network.named_modules() if isinstance(m, SameGrid)}


def convolutions(count: int, inputs: int = 3, outputs: int = 4) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(inputs, outputs, 3, padding=1) for _ in range(count))


class Joined(nn.Module):
    """A concatenation of two convolutions, one of which may be rectified, or both."""

    def __init__(self, *activations: nn.Module) -> None:
        super().__init__()
        self.convs = convolutions(2)
        self.activations = nn.ModuleList(activations)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [activation(conv(x)) for conv, activation in zip(self.convs, self.activations, strict=True)]
        return self.last(torch.cat(branches, 1)).mean((2, 3))


def test_a_concatenation_shares_one_scale_with_inputs_of_its_form() -> None:
    network = quantised(Joined(nn.ReLU(), nn.ReLU()))
    assert set(quantizers(network)) == {"x", "activations_0", "last"}
    assert same_grids(network) == {"cat": "activations_0"}
    calls = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    assert calls.count("quantize_activations_0") == 2


def test_a_rectified_input_keeps_its_own_grid_beside_a_signed_one() -> None:
    network = quantised(Joined(nn.ReLU(), nn.Identity()))
    found = quantizers(network)
    assert {name: q.non_negative for name, q in found.items()} == {"x": False, "activations_0": True, "convs_1": False, "last": False}
    assert same_grids(network) == {}
    calls = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    assert calls.count("quantize_convs_1") == 2  # on the signed input and on the concatenation, which holds values off that grid


def test_clips_of_different_height_share_no_grid() -> None:
    found = quantizers(quantised(Joined(nn.ReLU6(), nn.Hardtanh(0, 4))))
    assert {name: q.highest for name, q in found.items() if name != "x"} == {"activations_0": 6, "activations_1": 4, "cat": None, "last": None}


def test_moved_values_keep_their_grid() -> None:
    class Moves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(36, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(functional.max_pool2d(torch.relu(self.conv(x)), 2).flatten(1))

    network = quantised(Moves())
    assert set(quantizers(network)) == {"x", "relu"}
    assert same_grids(network) == {"flatten": "relu"}


@pytest.mark.parametrize(
    ("join", "signs", "expected"),
    [
        (torch.add, (True, True), True),
        (torch.add, (True, False), False),
        (torch.mul, (True, True), True),
        (torch.mul, (False, False), False),
        (lambda a, b: functional.avg_pool2d(a, 2) + functional.max_pool2d(b, 2), (True, True), True),
    ],
)
def test_sums_and_products_of_non_negative_tensors_are_non_negative(join, signs, expected) -> None:  # type: ignore[no-untyped-def]
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs, self.last = convolutions(2), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = (conv(x).relu() if sign else conv(x) for conv, sign in zip(self.convs, signs, strict=True))
            return self.last(join(a, b)).mean((2, 3))

    found = quantizers(quantised(Two()))
    joined = next(name for name in found if name.startswith(("add", "mul")))
    assert found[joined].non_negative is expected


class Gated(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.convs, self.activation = convolutions(2, 3, 3), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convs[1](self.activation(self.convs[0](x))).mean((2, 3))


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.Hardswish(), nn.Sigmoid(), nn.Hardsigmoid()])
def test_what_trt_fuses_with_an_activation_is_quantised_for_ort_alone(activation: nn.Module) -> None:
    found = quantizers(quantised(Gated(activation), "trt"))
    assert {name: q.active for name, q in found.items()} == {"x": True, "convs_0": False, "activation": True, "convs_1": True}
    assert all(q.active for q in quantizers(quantised(Gated(activation), "ort")).values())


def test_what_is_read_twice_is_fused_with_nothing() -> None:
    class Twice(Gated):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.convs[0](x)
            return self.convs[1](self.activation(y) + y).mean((2, 3))

    assert quantizers(quantised(Twice(nn.SiLU()), "trt"))["convs_0"].active


def test_a_residual_is_fused_through_stochastic_depth() -> None:
    class StochasticDepth(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    class Residual(Gated):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.convs[1](x + self.activation(self.convs[0](x))).mean((2, 3))

    assert not quantizers(quantised(Residual(StochasticDepth()), "trt"))["convs_0"].active


def test_logits_stay_in_float_behind_a_pooling() -> None:
    network = quantised(nn.Sequential(nn.Conv2d(3, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert len(quantizers(network)) == 2  # on the images and behind the ReLU
    assert [str(node.target) for node in network.graph.nodes][-3:] == ["2", "3", "output"]
