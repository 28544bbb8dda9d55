"""What a target device can do and must achieve."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from profiles.source import Record

Precision = Literal["fp32", "fp16", "int8"]
Runtime = Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
VERSION_RANGE = r"^(==|!=|>=|<=|<|>|~=)[\w.]+(,(==|!=|>=|<=|<|>|~=)[\w.]+)*$"


class Peak(Record):
    """Published dense peak rates (no structured sparsity) and memory bandwidth; the source stands in the YAML's comment."""

    fp32_tflops: Positive
    fp16_tflops: Positive
    int8_tops: Positive
    bandwidth_gb_s: Positive


class Device(Record):
    """One piece of hardware.

    Attributes:
        name: Marketing name, or ``host`` for the machine that Bonsai runs on.
        sm: CUDA compute capability of a GPU, such as ``8.9``.
        memory_gb: Memory of the device in gigabytes.
        peak: Published rates, from which latency is estimated where it cannot be measured.
    """

    kind: Literal["cpu", "gpu"]
    vendor: str
    name: str
    sm: Annotated[str, Field(pattern=r"^\d+\.\d$")] | None = None
    memory_gb: Positive | None = None
    peak: Peak | None = None

    @property
    def is_host(self) -> bool:
        """Whether the device is the machine that Bonsai runs on."""
        return self.name == "host"

    @model_validator(mode="after")
    def _complete(self) -> "Device":
        if self.kind == "gpu" and self.sm is None:
            raise ValueError("a gpu needs `sm`, its compute capability")
        if self.peak is None and (self.kind == "gpu" or not self.is_host):
            raise ValueError("a gpu, and any device other than `host`, needs `peak`, its published rates: without them nothing can be estimated")
        return self


class Target(Record):
    """How the network runs on the device: all that latency depends on besides the network.

    Attributes:
        runtime_version: Version range of the runtime, as in a Python requirement: ``>=1.22,<2``.
        threads: Threads that the runtime may use.
        batch: Images per inference.
    """

    device: Device
    runtime: Runtime
    runtime_version: Annotated[str, Field(pattern=VERSION_RANGE)]
    precision: Precision
    threads: Annotated[int, Field(ge=1)] = 1
    batch: Annotated[int, Field(ge=1)] = 1


class Budget(Record):
    """The latency that the engine may take: a fraction of the dense FP32 engine's, or milliseconds."""

    latency: Fraction | None = None
    latency_ms: Positive | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Budget":
        if (self.latency is None) == (self.latency_ms is None):
            raise ValueError("exactly one of `latency` (fraction of the dense FP32 engine's p50) and `latency_ms` (milliseconds); null unsets one")
        return self

    def limit_ms(self, dense_ms: float) -> float:
        """Return the budget in milliseconds, given the dense FP32 engine's p50 in milliseconds."""
        return self.latency_ms if self.latency_ms is not None else float(self.latency or 1) * dense_ms

    def __str__(self) -> str:
        return f"p50 <= {self.latency_ms:g} ms" if self.latency_ms is not None else f"p50 <= {self.latency:.0%} of dense FP32"


class Gates(Record):
    """Limits beside the budget that the finished engine must meet.

    Attributes:
        max_accuracy_drop: Top-1 of the dense network minus top-1 of the engine, as a ratio 0-1.
        max_size_mb: Size of the engine file in megabytes (10^6 bytes).
    """

    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_size_mb: Positive | None = None


class ChannelMultiple(Record):
    """Widths are multiples of this step, by precision: between two steps a kernel costs as much as at the next one."""

    fp32: Annotated[int, Field(ge=1)]
    fp16: Annotated[int, Field(ge=1)]
    int8: Annotated[int, Field(ge=1)]


class HardwareProfile(Record):
    """A target device, the runtime on it, and what the engine must achieve there."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    description: str
    target: Target
    channel_multiple: ChannelMultiple
    budget: Budget
    gates: Gates = Gates()

    @property
    def width_step(self) -> int:
        """The channel multiple at the target's precision."""
        return int(getattr(self.channel_multiple, self.target.precision))
