"""Properties of a target's runtime. They are the same on every device, so no device is asked."""

from typing import NamedTuple

from bonsai.profiles.schema import Target
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.graph.onnx_graph import Dialect, FloatType


class GraphForm(NamedTuple):
    """The form of ONNX file that a target needs.

    Attributes:
        dialect: Form of its Q/DQ nodes.
        float_type: Number format of everything that is not quantised.
    """

    dialect: Dialect
    float_type: FloatType


class Runtime(NamedTuple):
    """Properties of a runtime, as `Backend` declares them.

    Attributes:
        package: Name of its distribution.
        float_beside_int8: Number format that it runs the layers of an INT8 graph in that stay in float.
        measures_operators: Whether single operators can be timed on it.
        profiles_kernels: Whether its profile of a whole engine tells the kernels apart.
        dissects: Whether it tells copies from computation on the device, and describes an engine's layers.
    """

    package: str
    float_beside_int8: FloatType
    measures_operators: bool
    profiles_kernels: bool
    dissects: bool


def runtime_of(target: Target) -> Runtime:
    """Return the properties of a target's runtime and execution provider."""
    backend = backend_of(target)
    return Runtime(*(getattr(backend, name) for name in Runtime._fields))


def graph_form(target: Target) -> GraphForm:
    """Return the form of the graphs that engines of the target's runtime and precision are built from."""
    backend = backend_of(target)
    if target.precision == "int8":
        return GraphForm(backend.dialect, backend.float_beside_int8)
    return GraphForm("float", target.precision)


def weight_bits(target: Target, info: DeviceInfo) -> int:
    """Return the width of weights whose products do not saturate on a device: 8 or 7."""
    return backend_of(target).weight_bits(info)
