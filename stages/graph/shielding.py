"""Protects float layers in a Q/DQ graph from ONNX Runtime.

ONNX Runtime's optimiser WeightBiasQuantization quantises the float weights of every convolution and Gemm that reads a DequantizeLinear, with one
scale per tensor. That includes the layers that must stay float because INT8 breaks them. The optimiser cannot be switched off, because it also
quantises the biases of the other layers. So a LeakyRelu of slope 1, which changes nothing, is inserted before each float layer.
"""

import onnx
from onnx import TensorProto, helper

PASSED = {"Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that ONNX Runtime moves a DequantizeLinear across."""


def shield_float_layers(model: onnx.ModelProto) -> bool:
    """Shield the layers in float, in place, and return whether there are any that read a quantised tensor."""
    floats = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    producers = {name: node for node in model.graph.node for name in node.output}
    shielded = False
    for position, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type not in {"Conv", "ConvTranspose", "Gemm"} or node.input[1] not in floats or not _reads_quantized(producers, node.input[0]):
            continue
        shield = helper.make_node("LeakyRelu", [node.input[0]], [f"{node.name}.shielded"], name=f"{node.name}.shield", alpha=1.0)
        node.input[0] = shield.output[0]
        model.graph.node.insert(position, shield)
        shielded = True
    return shielded


def _reads_quantized(producers: dict[str, onnx.NodeProto], name: str) -> bool:
    while name in producers and producers[name].op_type in PASSED:
        name = producers[name].input[0]
    return name in producers and producers[name].op_type == "DequantizeLinear"
