import copy

import pytest
import torch
from torch import nn

from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.counting import count_macs, count_parameters
from bonsai.stages.networks.edits.records import Quantizers
from bonsai.stages.quantization.calibrate import calibrate, freeze_batchnorm, layers_of
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.layers import QuantConvolution
from bonsai.stages.quantization.quantizers import ActivationQuantizer

SHAPE = (1, 16, 16)


def trained_like() -> nn.Module:
    torch.manual_seed(0)
    network = resnet8(in_channels=1, num_classes=10)
    for _ in range(3):
        network(torch.randn(32, *SHAPE))
    return network


def quantised(dialect: str = "ort") -> tuple[nn.Module, nn.Module]:
    network = trained_like()
    made = insert_quantizers(copy.deepcopy(network), SHAPE, Quantizers(dialect=dialect, weight_bits=8))
    calibrate(made, [torch.randn(32, *SHAPE)])
    return network.eval(), made


def test_every_layer_is_quantised_and_every_tensor_once() -> None:
    _, made = quantised()
    assert len(layers_of(made)) == 10  # nine convolutions and the classifier
    quantizers = {name: m for name, m in made.named_modules() if isinstance(m, ActivationQuantizer)}
    calls = [node for node in made.graph.nodes if isinstance(made.get_submodule(str(node.target)) if node.op == "call_module" else None, ActivationQuantizer)]
    assert len(calls) == len(quantizers)
    assert not any(isinstance(argument, torch.fx.Node) and str(argument.target) in quantizers for node in calls for argument in node.args)
    assert sum(q.fused_in_trt for q in quantizers.values()) == 3  # one fused residual per block
    assert not quantizers["quantize_x"].non_negative
    assert quantizers["quantize_relu"].non_negative
    assert quantizers["quantize_pool"].non_negative


def test_the_logits_are_not_quantised() -> None:
    _, made = quantised()
    output = next(node for node in made.graph.nodes if node.op == "output")
    assert str(output.args[0].target) == "fc"


@pytest.mark.parametrize("dialect", ["ort", "trt"])
def test_calibrated_logits_follow_the_float_network(dialect: str) -> None:
    network, made = quantised(dialect)
    images = torch.randn(64, *SHAPE)
    with torch.no_grad():
        expected, found = network(images), made.eval()(images)
    assert float((found - expected).abs().mean()) < 0.1 * float(expected.std())


def test_the_frozen_fold_equals_the_fold_in_evaluation() -> None:
    _, made = quantised()
    images = torch.randn(8, *SHAPE)
    with torch.no_grad():
        evaluated = made.eval()(images)
        freeze_batchnorm(made)
        torch.testing.assert_close(made.train()(images), evaluated)


def test_training_uses_the_batchs_statistics_until_frozen() -> None:
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
    layer = QuantConvolution(conv, bn, 8)
    layer.calibrate()
    x = torch.randn(16, 3, 8, 8) * 5 + 2
    out = layer.train()(x)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.var((0, 2, 3), unbiased=False), torch.ones(4), atol=1e-2, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_training_and_the_frozen_fold_agree_in_the_long_run(bias: bool) -> None:
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, momentum=None)
    layer = QuantConvolution(conv, bn, 8)
    layer.calibrate()
    x = torch.randn(64, 3, 8, 8) * 2 + 1
    with torch.no_grad():
        for _ in range(20):
            trained = layer.train()(x)
            layer.calibrate()
        torch.testing.assert_close(layer.eval()(x), trained, atol=0.1, rtol=0)


def test_counting_sees_through_quantised_layers() -> None:
    network, made = quantised()
    assert count_macs(made, SHAPE) == count_macs(network, SHAPE) > 1e6
    assert count_parameters(made) == count_parameters(network)


def test_a_dead_channel_is_dead_in_evaluation_however_large_the_weights_that_read_it() -> None:
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
    with torch.no_grad():
        bn.weight[0], bn.bias[0] = 0, 0
    layer = QuantConvolution(conv, bn, 8)
    layer.calibrate()
    images = torch.randn(4, 3, 8, 8)
    assert not layer.eval()(images)[:, 0].any()
    layer.train()(images)[:, 0].square().sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.isfinite().all()
