import pytest
import torch
from torch import nn

from bonsai.stages.graph.onnx_graph import Dialect
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.qdq import QdqConvolution, QdqLinear, QdqTensor

SHAPE = (3, 8, 8)
DIALECTS: tuple[Dialect, ...] = ("ort", "trt")


def export_form(network: nn.Module, dialect: Dialect) -> nn.Module:
    quantised = insert_quantizers(network.eval(), SHAPE, Quantizers(dialect=dialect, weight_bits=8))
    calibrate(quantised, [torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(0))])
    return to_export_form(quantised, dialect)


def head(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_bias_of_a_dead_channel_fits_into_an_int32(dialect: Dialect) -> None:
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    with torch.no_grad():
        bn.weight[0], bn.bias[0] = 0, 0.7
    exported = export_form(head(conv, bn, nn.ReLU()), dialect)
    layer = next(m for m in exported.modules() if isinstance(m, QdqConvolution))
    scale = next(m for m in exported.modules() if isinstance(m, QdqTensor)).scale
    assert layer.bias is not None
    steps = layer.bias / (layer.scale * scale)
    assert float(steps.abs().max()) < 2**31
    assert float(steps[0]) > 1e6  # still far finer than the activations' grid
    assert float((layer.weight[0] * layer.scale[0]).abs().max()) < 1e-5  # dead
    assert int(layer.weight[1].abs().max()) > 60


def test_a_linear_layers_bias_is_on_the_grid_of_its_products_in_ort_alone() -> None:
    layers = {}
    for dialect in DIALECTS:
        torch.manual_seed(0)
        network = head(nn.Conv2d(3, 4, 3), nn.ReLU())
        layers[dialect] = next(m for m in export_form(network, dialect).modules() if isinstance(m, QdqLinear))
    linear = network[-1]
    ort, trt = layers["ort"], layers["trt"]
    assert trt.bias_scale is None
    assert torch.equal(trt.bias, linear.bias)
    assert ort.bias.dtype == torch.int32
    torch.testing.assert_close(ort.bias * ort.bias_scale, linear.bias.detach(), atol=float(ort.bias_scale.max()), rtol=0)


def test_a_lone_batchnorm_and_average_pooling_are_depthwise_convolutions_in_ort() -> None:
    torch.manual_seed(0)
    bn = nn.BatchNorm2d(3)
    with torch.no_grad():
        bn.weight.copy_(torch.tensor([1.5, -0.5, 0.0]))
    network = head(bn, nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 1))
    exported = {dialect: export_form(network, dialect) for dialect in DIALECTS}
    depthwise = exported["ort"].get_submodule("0")
    assert isinstance(depthwise, QdqConvolution)
    assert depthwise.weight.flatten().tolist()[:2] == [127, -127]
    assert float(depthwise.scale[2] * 127) < 2e-6
    torch.testing.assert_close(depthwise.scale[:2] * 127, bn.weight[:2].detach().abs() / (1 + bn.eps) ** 0.5)
    pooling = exported["ort"].get_submodule("2")
    assert isinstance(pooling, QdqConvolution)
    assert set(pooling.weight.flatten().tolist()) == {127}
    assert isinstance(exported["trt"].get_submodule("0"), nn.BatchNorm2d)
    assert not isinstance(exported["trt"].get_submodule("2"), QdqConvolution)


def test_a_grid_ends_where_its_clip_does() -> None:
    quantised = insert_quantizers(head(nn.Conv2d(3, 4, 1), nn.ReLU6()), SHAPE, Quantizers(dialect="ort", weight_bits=8))
    quantizer = quantised.get_submodule("quantize__1")
    quantizer.scale.data.fill_(1.0)
    out = quantizer(torch.tensor([[0.0, 5.9999, 6.0, 7.0]], requires_grad=True))
    assert float(out.detach().max()) == pytest.approx(6, rel=1e-5)
    for dialect in DIALECTS:
        exported = to_export_form(quantised, dialect).get_submodule("quantize__1")
        assert exported.scale.dtype == torch.float32
        assert float(exported.scale * torch.iinfo(exported.dtype).max) <= 6  # as ONNX Runtime computes it
    out.sum().backward()
    assert float(quantizer.scale.grad) != 0


def test_the_original_is_left_as_it_was() -> None:
    quantised = insert_quantizers(head(nn.Conv2d(3, 4, 1)).train(), SHAPE, Quantizers(dialect="ort", weight_bits=8))
    calibrate(quantised, [torch.randn(4, *SHAPE)])
    state = {name: value.clone() for name, value in quantised.state_dict().items()}
    to_export_form(quantised, "trt")
    assert quantised.training
    assert all(torch.equal(value, state[name]) for name, value in quantised.state_dict().items())
