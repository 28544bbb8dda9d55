"""A quantised network in the form that is exported: int8 weights, QuantizeLinear and DequantizeLinear."""

import copy

import torch
from torch import fx, nn

from bonsai.stages.graph.onnx_graph import Dialect, FloatType
from bonsai.stages.graph.trace import module_of
from bonsai.stages.quantization.layers import Convolution, LoneBatchNorm, QuantConvolution, QuantLinear, fold_ratio
from bonsai.stages.quantization.operations import AveragePool, GatedActivation, GlobalAverage
from bonsai.stages.quantization.qdq import OnnxGlobalAverage, QdqConvolution, QdqGatedActivation, QdqLinear, QdqTensor, as_stored
from bonsai.stages.quantization.quantizers import ActivationQuantizer, SameGrid, WeightQuantizer
from bonsai.stages.quantization.taking import calls_of

LARGEST_BIAS = 2.0**30
"""Steps: runtimes hold a bias as int32 on the grid of input times weight."""


def to_export_form(network: fx.GraphModule, dialect: Dialect, float_type: FloatType = "fp32") -> fx.GraphModule:
    """Return a copy of a quantised network that exports to Q/DQ ONNX in `dialect`, with scales that `float_type` can hold."""
    exported = copy.deepcopy(network).eval()
    for node, copied in zip(network.graph.nodes, exported.graph.nodes, strict=True):
        form = _form(network, node, dialect, float_type)
        if form is None:
            continue
        if isinstance(form, QdqConvolution | QdqLinear) and len(calls_of(network, node)) > 1:  # its bias follows from what each call reads
            copied.target = f"{str(node.target).replace('.', '_')}_of_{node.name}"
            exported.add_submodule(copied.target, form)
        else:
            exported.set_submodule(str(node.target), form)
    exported.delete_all_unused_submodules()
    exported.recompile()
    return exported


def count_quantised(exported: fx.GraphModule) -> int:
    """Return how many convolutions and products with weights an export form holds as INT8."""
    return sum(isinstance(module_of(exported, node), QdqConvolution | QdqLinear) for node in exported.graph.nodes)


def _form(network: fx.GraphModule, node: fx.Node, dialect: Dialect, float_type: FloatType) -> nn.Module | None:
    """Return what takes the place of the module that a node calls, or None if it is exported as it is."""
    module = module_of(network, node)
    if isinstance(module, SameGrid):
        module = network.get_submodule(module.quantizer)
    if isinstance(module, ActivationQuantizer):
        return nn.Identity() if dialect == "trt" and module.fused_in_trt else QdqTensor.of(module, dialect, float_type)
    if isinstance(module, QuantConvolution):
        return _convolution(module.conv, *module.folded(), module.weight_quantizer, _input_scale(network, node, dialect), float_type)
    if isinstance(module, QuantLinear):
        return _linear(module, _input_scale(network, node, dialect), dialect, float_type)
    if isinstance(module, GlobalAverage):
        return OnnxGlobalAverage()
    if isinstance(module, GatedActivation):
        return QdqGatedActivation(module.kind) if dialect == "ort" else GatedActivation(module.kind, dialect)
    if dialect == "ort" and isinstance(module, LoneBatchNorm | AveragePool):
        conv = _as_convolution(module)
        if conv is not None:
            weights = WeightQuantizer(conv.out_channels, module.weight_bits)
            weights.scale.data.copy_(conv.weight.detach().abs().flatten(1).amax(1).clamp_min(1e-12) / weights.high)
            return _convolution(conv, conv.weight, conv.bias, weights, _input_scale(network, node, dialect), float_type)
    return copy.deepcopy(module.bn) if isinstance(module, LoneBatchNorm) else None


def _input_scale(network: fx.GraphModule, node: fx.Node, dialect: Dialect) -> float:
    """Return the scale of the tensor that a layer reads."""
    source = node.all_input_nodes[0]
    while not isinstance(module := module_of(network, source), ActivationQuantizer | SameGrid):
        source = source.all_input_nodes[0]  # an identity in evaluation
    quantizer = network.get_submodule(module.quantizer) if isinstance(module, SameGrid) else module
    assert isinstance(quantizer, ActivationQuantizer)
    return quantizer.scale_in(dialect)


def _convolution(
    conv: Convolution,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    quantizer: WeightQuantizer,
    input_scale: float,
    float_type: FloatType,
) -> QdqConvolution:
    groups = conv.groups if quantizer.axis == 1 else 1
    scale = as_stored(_holding(bias, quantizer.scale, input_scale, groups), float_type)
    return QdqConvolution(conv, quantizer.integers(weight, scale), scale, bias)


def _linear(layer: QuantLinear, input_scale: float, dialect: Dialect, float_type: FloatType) -> QdqLinear:
    weight, bias = layer.linear.weight, layer.linear.bias
    scale = as_stored(_holding(bias, layer.weight_quantizer.scale, input_scale, 1), float_type)
    integers = layer.weight_quantizer.integers(weight, scale)
    if bias is None or dialect == "trt":  # TensorRT refuses a bias in int32
        return QdqLinear(integers, scale, None if bias is None else bias.detach().clone(), None)
    grid = scale * input_scale
    return QdqLinear(integers, scale, (bias.detach() / grid).round().to(torch.int32), grid)


def _holding(bias: torch.Tensor | None, scale: torch.Tensor, input_scale: float, groups: int) -> torch.Tensor:
    """Return weight scales (channels,) at which the bias fits into an int32: where a channel's weights are next to nothing it would wrap around."""
    scale = scale.detach().abs()
    if bias is None:
        return scale.clone()
    return torch.maximum(scale, bias.detach().abs().reshape(groups, -1).amax(0) / (LARGEST_BIAS * input_scale))


def _as_convolution(module: LoneBatchNorm | AveragePool) -> nn.Conv2d | None:
    """Return the depthwise convolution that a module equals, which ONNX Runtime has a fast INT8 kernel for; None where there is none."""
    if isinstance(module, AveragePool):
        return module.as_convolution()
    bn = module.bn
    if not isinstance(bn, nn.BatchNorm2d):
        return None
    assert bn.running_mean is not None
    ratio = fold_ratio(bn)
    conv = nn.Conv2d(bn.num_features, bn.num_features, 1, groups=bn.num_features)
    assert conv.bias is not None
    conv.weight.data.copy_(ratio.detach().reshape(-1, 1, 1, 1))
    conv.bias.data.copy_((bn.bias - bn.running_mean * ratio).detach())
    return conv
