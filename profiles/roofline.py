"""Latency of one operator, estimated from a device's published figures where nothing was measured.

The roofline model (Williams, Waterman, Patterson, CACM 2009) with channels rounded up to the kernel's
tile. On its own it is a guess, 3-50 % off: every figure that rests on it is called *estimated*.
"""

from math import ceil

from profiles.latency import OperatorClass
from profiles.schema import Peak, Precision

EFFICIENCY = 0.5  # share of the published rate that real kernels reach; an assumption, like LAUNCH_US
LAUNCH_US = 3.0
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


def estimate_us(operator: OperatorClass, ci: int, co: int, *, peak: Peak, precision: Precision, batch: int, step: int) -> float:
    """Return the estimated microseconds of an operator.

    Args:
        operator: The operator's class.
        ci: Input channels.
        co: Output channels.
        peak: The device's published rates.
        precision: Number format of weights and activations.
        batch: Images per inference.
        step: Channel multiple of the device's kernels at this precision.
    """
    pixels = batch * operator.height * operator.width
    tiled_ci = 1 if operator.depthwise else ceil(ci / step) * step
    tiled_co = ceil(co / step) * step
    operations = 2 * pixels * tiled_ci * tiled_co * operator.kernel**2
    tera_ops = peak.tera_ops(precision)
    assert tera_ops is not None  # the profile's schema asks for it
    rate = tera_ops * 1e6
    inputs = pixels * operator.stride**2 * ci
    outputs = pixels * co * (2 if operator.epilogue.startswith("add") else 1)
    weights = (1 if operator.depthwise else ci) * co * operator.kernel**2
    moved = BYTES[precision] * (inputs + outputs + weights)
    return LAUNCH_US + max(operations / (rate * EFFICIENCY), moved / (peak.bandwidth_gb_s * 1e3))
