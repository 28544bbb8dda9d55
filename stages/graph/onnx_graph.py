"""An ONNX file, and the forms that it may have."""

from typing import Literal

from bonsai.stages.store.artifact import Artifact

Dialect = Literal["float", "ort", "trt"]
"""Form of an ONNX file: without Q/DQ nodes, or with those of ONNX Runtime or of TensorRT."""

FloatType = Literal["fp32", "fp16"]
"""Number format of what is not quantised."""


class OnnxGraph(Artifact):
    """An ONNX file ``model.onnx`` with the input `input` and the task's outputs, dynamic batch.

    Attributes:
        dialect: The runtime family whose Q/DQ form the file holds; ``float`` has none.
        float_type: Number format of everything that is not quantised. Input and outputs are always FP32.
        audit: Counts of nodes.
        not_simplified: Why the simplified file was rejected and the exporter's kept; empty where it was not.
        parity: Agreement with the torch network on real images.
        fused: Whether the network was trained in branches that are fused in the file.
    """

    dialect: Dialect
    float_type: FloatType
    opset: int
    image_shape: tuple[int, ...]
    audit: dict[str, int]
    not_simplified: str = ""
    parity: dict[str, float]
    parameters: int
    macs: int
    fused: bool = False
