"""Latency of one operator, estimated from a device's published figures where nothing was measured.

The roofline model (Williams, Waterman, Patterson, CACM 2009) with channels rounded up to the kernel's
tile. On its own it is a guess, 3-50 % off: every figure that rests on it is called *estimated*.
"""

from math import ceil

from bonsai.profiles.operator_class import POINTWISE, OperatorClass
from bonsai.profiles.schema import Peak, Precision

EFFICIENCY = 0.5  # share of the published rate that real kernels reach; an assumption, like LAUNCH_US
LAUNCH_US = 3.0
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


def estimate_us(operator: OperatorClass, ci: int, co: int, *, peak: Peak, precision: Precision, batch: int, step: int) -> float:
    """Return the estimated microseconds of an operator.

    Pointwise operators are assumed to be fused with the operator before them: they cost the memory that they move, but no kernel launch.

    Args:
        operator: The operator's class.
        ci: Input channels.
        co: Output channels.
        peak: The device's published rates.
        precision: Number format of weights and activations, where the class has none of its own.
        batch: Images per inference.
        step: Channel multiple of the device's kernels at this precision.
    """
    precision = operator.precision or precision
    rate = (peak.tera_ops(precision) or peak.fp32_tflops) * 1e6  # float beside INT8 may be a format that the target has no rate for
    operations = 2 * batch * _tiled_macs(operator, ci, co, step)
    moved = BYTES[precision] * (batch * _values(operator, ci, co) + _constants(operator, ci, co))
    launch = 0.0 if operator.op in POINTWISE else LAUNCH_US
    return launch + max(operations / (rate * EFFICIENCY), moved / (peak.bandwidth_gb_s * 1e3))


def _tiled_macs(operator: OperatorClass, ci: int, co: int, step: int) -> int:
    """Return the multiply-accumulates of the kernels. Outputs come in whole tiles, and inputs where an output sees all of them; of attention in every head."""
    if operator.op == "matmul":
        heads = operator.num_groups(ci)
        inner, outer = (ceil(channels / heads / step) * step for channels in (ci, co))
        return operator.model_copy(update={"groups": heads, "group_channels": None}).macs(heads * inner, heads * outer)
    grouped = operator.group_channels is not None or operator.groups > 1
    return operator.macs(ci if grouped else ceil(ci / step) * step, ceil(co / step) * step)


def _values(operator: OperatorClass, ci: int, co: int) -> int:
    """Return the values of one image that are read and written; a residual that is added, and the second operand of a product, are read too."""
    height, width = operator.reads
    pixels = operator.height * operator.width
    if operator.is_light:
        return height * width * ci * (2 if operator.op in {"add", "mul"} else 1) + pixels * ci
    second = operator.weights(ci, co) if operator.op == "matmul" else 0
    outputs = pixels * co * (2 if operator.epilogue.startswith("add") else 1)
    return operator.tokens * (height * width * ci + outputs) + second


def _constants(operator: OperatorClass, ci: int, co: int) -> int:
    """Return the weights, which are read once for all images."""
    return 0 if operator.op == "matmul" else operator.weights(ci, co)
