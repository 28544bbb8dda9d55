"""Classes of operators: all properties that decide an operator's latency except its channels, and its work at given channels."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Precision

Heavy = Literal["conv", "conv1d", "conv_transposed", "linear", "matmul"]
Light = Literal[
    "add", "mul", "relu", "leaky_relu", "elu", "silu", "hardswish", "mish", "gelu", "tanh", "sigmoid", "hardsigmoid", "softmax",
    "max_pool", "avg_pool", "global_pool", "batch_norm", "layer_norm", "group_norm", "concat", "resize",
]  # fmt: skip
LIGHT: frozenset[str] = frozenset(get_args(Light))
"""Operators without a matrix product, unlike `Heavy` ones. Their cost is the memory that they move."""
POINTWISE: frozenset[str] = frozenset(get_args(Light)[:12])
"""Elementwise operators, with one or two inputs."""


def _pair(value: Any) -> Any:
    """Return (height, width) of a side of a square, or of `HxW`."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, str):
        sides = value.split("x")
        return sides * 2 if len(sides) == 1 else sides
    return value


Count = Annotated[int, Field(ge=1, lt=2**31)]
Pair = Annotated[tuple[Count, Count], BeforeValidator(_pair)]


class OperatorClass(Record):
    """All properties that decide an operator's latency, except its channels. Pairs are (height, width); one number means both.

    Attributes:
        op: Operator as the runtime fuses it.
        kernel: Kernel in pixels.
        stride: Step between two windows; of a transposed convolution between two outputs of neighbouring inputs.
        dilation: Distance between two taps of the kernel.
        height: Output height in pixels; the places of what is no image.
        width: Output width in pixels.
        input_size: Input height and width where they are not output times stride (of a transposed convolution: output over stride).
        groups: Groups of a convolution, or products side by side (heads of an attention); an output sees the inputs of its own group.
        group_channels: Inputs and outputs of each group, where whole groups may leave. The number of groups and the outputs then follow from the inputs.
        tokens: Rows that a linear layer or a product multiplies for every image.
        epilogue: What is fused behind it, such as ``relu`` (which a clip at 6 costs as much as) or ``add_relu``.
        precision: Number format, where it is not that of the whole network: of an operator that stays in float beside INT8.
    """

    op: Heavy | Light
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    height: Count = 1
    width: Count = 1
    input_size: Pair | None = None
    groups: Count = 1
    group_channels: Pair | None = None
    tokens: Count = 1
    epilogue: Literal["none", "relu", "add", "add_relu"] = "none"
    precision: Precision | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_package(cls, values: Any) -> Any:
        """Read what packages of version 0.1 hold: `depthwise`, and `multiplier`."""
        if not isinstance(values, dict) or "depthwise" not in values:
            return values
        values = dict(values)
        depthwise, multiplier = values.pop("depthwise"), values.pop("multiplier", 1)
        return values | ({"group_channels": (1, multiplier)} if depthwise else {})

    @property
    def is_light(self) -> bool:
        """Whether it multiplies no matrices."""
        return self.op in LIGHT

    @property
    def one_axis(self) -> bool:
        """Whether the outputs follow from the inputs, so that its latency depends on one number of channels."""
        return self.group_channels is not None or self.is_light

    @property
    def depthwise(self) -> bool:
        """Whether it is a convolution with a group for every input channel."""
        return self.op.startswith("conv") and self.group_channels is not None and self.group_channels[0] == 1

    def outputs(self, ci: int) -> int:
        """Return the outputs that follow from the inputs, where `one_axis`."""
        ins, outs = self.group_channels or (1, 1)
        return ci // ins * outs

    def num_groups(self, ci: int) -> int:
        """Return the number of groups at a number of input channels."""
        return self.groups if self.group_channels is None else ci // self.group_channels[0]

    def step(self, device_step: int) -> int:
        """Return the multiple of channels that kernels compute: the device's, or a whole group where each is computed on its own."""
        return device_step if self.group_channels is None or self.depthwise else self.group_channels[0]

    @property
    def taps(self) -> int:
        """Places that a kernel covers."""
        return self.kernel[0] * self.kernel[1]

    @property
    def reads(self) -> tuple[int, int]:
        """Input height and width."""
        if self.input_size is not None:
            return self.input_size
        if self.op == "conv_transposed":
            return max(self.height // self.stride[0], 1), max(self.width // self.stride[1], 1)
        return self.height * self.stride[0], self.width * self.stride[1]

    def weights(self, ci: int, co: int) -> int:
        """Return how many multipliers one place needs: the weights, or the second operand of a product."""
        if self.is_light:
            return 0
        inputs = ci // self.groups if self.group_channels is None else self.group_channels[0]  # that an output sees
        return inputs * co * self.taps

    def macs(self, ci: int, co: int) -> int:
        """Return the multiply-accumulates for one image: every weight meets every output, of a transposed convolution every input."""
        height, width = self.reads if self.op == "conv_transposed" else (self.height, self.width)
        return self.weights(ci, co) * height * width * self.tokens

    def __str__(self) -> str:
        kernel, stride, dilation = (f"{pair[0]}x{pair[1]}" for pair in (self.kernel, self.stride, self.dilation))
        grouped = "x".join(map(str, self.group_channels or ()))
        lead = "depthwise" if self.depthwise else f"groups {grouped} of" if grouped else f"{self.groups} groups of" if self.groups > 1 else ""
        words = [lead, self.op.replace("_", " ")]
        words += [kernel if self.op.startswith("conv") or self.op.endswith("_pool") else ""]
        text = " ".join(word for word in words if word)
        text += (f", stride {stride}" if stride != "1x1" else "") + (f", dilation {dilation}" if dilation != "1x1" else "")
        text += f", {self.tokens} tokens" if self.tokens > 1 else f", to {self.height}x{self.width}" if self.height * self.width > 1 else ""
        return text + (f", {self.precision}" if self.precision else "")
