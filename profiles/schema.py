"""The records of a profile: what a target device can do and must achieve."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bonsai.profiles.address import PYTHON, Address, Python
from bonsai.profiles.budget import Budget, Point, Positive
from bonsai.profiles.located_yaml import Record

Precision = Literal["fp32", "fp16", "int8"]
Runtime = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
Provider = Literal["cpu", "openvino", "cuda", "tensorrt"]
Isa = Literal["avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm"]
PROVIDER_KINDS: dict[Provider, str] = {"cpu": "cpu", "openvino": "cpu", "cuda": "gpu", "tensorrt": "gpu"}
"""By execution provider of ONNX Runtime, the kind of device that it runs on."""
SIZED: tuple[Runtime, ...] = ("tensorrt", "tensorrt-rtx")
"""Runtimes whose engines take up to `target.batch` images."""
VERSION_RANGE = r"^(==|!=|>=|<=|<|>|~=)[\w.]+(,(==|!=|>=|<=|<|>|~=)[\w.]+)*$"


class Peak(Record):
    """Published dense peak rates (no structured sparsity) and memory bandwidth; the source stands in the YAML's comment.

    Attributes:
        fp32_tflops: 10^12 operations per second of what an FP32 engine runs as: TF32 on a GPU that has it, since TensorRT takes it by default.
        fp16_tflops: 10^12 operations per second at FP16; needed where `precisions` has it.
        int8_tops: 10^12 operations per second at INT8; needed where `precisions` has it.
        bandwidth_gb_s: Memory bandwidth in gigabytes per second. A CPU's rates are those of the target's threads, not of all its cores.
    """

    fp32_tflops: Positive
    fp16_tflops: Positive | None = None
    int8_tops: Positive | None = None
    bandwidth_gb_s: Positive

    def tera_ops(self, precision: Precision) -> float | None:
        """Return the rate at a precision in 10^12 operations per second, or None where none is published."""
        return {"fp32": self.fp32_tflops, "fp16": self.fp16_tflops, "int8": self.int8_tops}[precision]


class Hardware(Record):
    """One piece of hardware.

    Attributes:
        kind: Kind of processor that runs the network.
        vendor: Who makes it, such as ``NVIDIA``; ``host`` for this machine.
        name: Marketing name of a CPU; a GPU's name as its driver tells it, without the vendor; ``host`` for the machine that Bonsai runs on, or the one at
            the address.
        sm: CUDA compute capability of a GPU, such as ``8.9``.
        isa: Instruction sets of a CPU that matter to its kernels; those of the host are detected.
        memory_gb: Memory of the device in gigabytes.
        peak: Published rates, from which latency is estimated where it cannot be measured.
        address: Where the device is, ``ssh://[user@]host[:port]``: everything is then built and measured there. Neither keys nor packages hold it.
        python: Python on the device at the address that has Bonsai; `bonsai device setup` makes it.
    """

    kind: Literal["cpu", "gpu"]
    vendor: str
    name: str
    sm: Annotated[str, Field(pattern=r"^\d+\.\d$")] | None = None
    isa: tuple[Isa, ...] = ()
    memory_gb: Positive | None = None
    peak: Peak | None = None
    address: Address | None = Field(default=None, exclude=True)  # excluded from every key, package and process: of a device its `DeviceInfo` counts
    python: Python = Field(default=PYTHON, exclude=True)

    @property
    def is_host(self) -> bool:
        """Whether no CPU is named: the device is the machine that Bonsai runs on, or the one at the address, whatever it is."""
        return self.name == "host"

    @model_validator(mode="after")
    def _complete(self) -> "Hardware":
        if self.kind == "gpu" and self.sm is None:
            raise ValueError("a gpu needs `sm`, its compute capability")
        if bool(self.isa) != (self.kind == "cpu" and not self.is_host):
            raise ValueError("`isa` is what a cpu other than `host` needs: the host's is detected, a gpu has `sm`")
        if self.peak is None and (self.kind == "gpu" or not self.is_host):
            raise ValueError("a gpu, and any device other than `host`, needs `peak`, its published rates: without them nothing can be estimated")
        return self


SPARSE_SM = 8.0
"""Least compute capability of a GPU that has kernels for 2:4 sparse weights."""


class Target(Record):
    """How the network runs on the device: all that latency depends on besides the network.

    Attributes:
        runtime: Software that runs the engine; `bonsai list backends` describes the choices.
        provider: Execution provider of ONNX Runtime; its package, which `runtime_version` is of, differs by provider.
        runtime_version: Version range of the runtime, as in a Python requirement: ``>=1.22,<2``.
        precisions: Precisions that the device supports with this runtime; FP32 or FP16 among them, for the dense reference.
        precision: The one of them that widths are chosen for. Engines of the wider ones are built too: measured, the fastest that meets
            the gates is shipped; where nothing can be measured, the one of this precision.
        timing_cache: File of kernel timings that an engine of TensorRT is built with, so that the same kernels are chosen again;
            ``timing.cache`` beside an earlier engine. Relative to the profile's file.
        sparse_weights: Whether TensorRT may run layers whose weights are 2:4 sparse by kernels for that. Bonsai makes no weights sparse; it counts the
            layers that are. Runtime ``tensorrt`` alone, compute capability 8.0 or higher.
        power_mode: Name of the device's power mode that the rates and the budget are meant for; set it yourself, nothing here does.
        threads: Threads that the runtime may use.
        batch: Images per inference.
    """

    device: Hardware
    runtime: Runtime
    provider: Annotated[Provider, Field(validate_default=True)] = "cpu"
    runtime_version: Annotated[str, Field(pattern=VERSION_RANGE)]
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1)] = ("fp32", "int8")
    precision: Precision
    timing_cache: str | None = None
    sparse_weights: bool = False
    power_mode: str | None = None
    threads: Annotated[int, Field(ge=1)] = 1
    batch: Annotated[int, Field(ge=1)] = 1

    @field_validator("provider")
    @classmethod
    def _one_of_the_runtime(cls, provider: Provider, others: ValidationInfo) -> Provider:
        runtime, device = others.data.get("runtime"), others.data.get("device")
        if runtime is not None and runtime != "onnxruntime" and provider != "cpu":
            raise ValueError(f"no provider: it applies to runtime onnxruntime only; remove it for {runtime}")
        if runtime == "onnxruntime" and device is not None and PROVIDER_KINDS[provider] != device.kind:
            raise ValueError(f"for a {device.kind}: {', '.join(name for name, kind in PROVIDER_KINDS.items() if kind == device.kind)}")
        return provider

    @field_validator("timing_cache")
    @classmethod
    def _of_tensorrt(cls, file: str | None, others: ValidationInfo) -> str | None:
        if file is not None and others.data.get("runtime") != "tensorrt":
            raise ValueError("left out: only runtime tensorrt times kernels while it builds")
        return file

    @field_validator("sparse_weights")
    @classmethod
    def _where_kernels_are(cls, sparse: bool, others: ValidationInfo) -> bool:
        device: Hardware | None = others.data.get("device")
        if sparse and others.data.get("runtime") != "tensorrt":
            raise ValueError("left out: only runtime tensorrt has kernels for sparse weights")
        if sparse and device is not None and float(device.sm or 0) < SPARSE_SM:
            raise ValueError(f"left out: kernels for sparse weights need compute capability {SPARSE_SM} or higher, not {device.sm}")
        return sparse

    def identity(self) -> str:
        """Return the JSON, with the content of the timing cache in place of its path."""
        timings = sha256(Path(self.timing_cache).read_bytes()).hexdigest() if self.timing_cache else ""
        default = set() if self.sparse_weights else {"sparse_weights"}  # engines that were built before there was the key are still this target's
        return self.model_dump_json(exclude={"timing_cache", *default}) + timings

    @field_validator("precisions")
    @classmethod
    def _has_a_reference(cls, precisions: tuple[Precision, ...]) -> tuple[Precision, ...]:
        if precisions == ("int8",):
            raise ValueError("fp32 or fp16 among them: the dense reference is a float engine. `precision: int8` alone makes the run try no other")
        return precisions

    @field_validator("precision")
    @classmethod
    def _one_of_precisions(cls, precision: Precision, others: ValidationInfo) -> Precision:
        precisions = others.data.get("precisions", (precision,))
        if precision not in precisions:
            raise ValueError(f"one of `precisions`: {', '.join(precisions)}")
        return precision

    @property
    def runs_on(self) -> str:
        """Runtime, and its execution provider where that is not the CPU's own: ``onnxruntime/openvino``."""
        return self.runtime if self.provider == "cpu" else f"{self.runtime}/{self.provider}"

    @property
    def reference(self) -> Precision:
        """Precision of the dense network that a budget is a fraction of: FP32, or FP16 where `precisions` has that alone of the two."""
        return "fp16" if "fp16" in self.precisions and "fp32" not in self.precisions else "fp32"

    @property
    def candidates(self) -> tuple[Precision, ...]:
        """The target's own precision and the wider ones that it runs: the pruned network is built at each, since a narrower one is not always faster."""
        order = get_args(Precision)
        return tuple(p for p in order[: order.index(self.precision) + 1] if p in self.precisions)

    def at(self, precision: Precision) -> "Target":
        """Return the same target at another precision."""
        return self.model_copy(update={"precision": precision})

    def on_device_of(self, other: "Target") -> "Target":
        """Return the same target, reached where another one's device is."""
        return self.model_copy(update={"device": self.device.model_copy(update={"address": other.device.address, "python": other.device.python})})

    def as_there(self) -> "Target":
        """Return the target as its own device takes it, which measures a CPU as a machine measures itself."""
        own = {"name": "host", "isa": ()} if self.device.kind == "cpu" else {}
        return self.model_copy(update={"device": self.device.model_copy(update={"address": None, **own})})

    @model_validator(mode="after")
    def _has_rates(self) -> "Target":
        unpublished = [p for p in self.precisions if self.device.peak is not None and self.device.peak.tera_ops(p) is None]
        if unpublished:
            raise ValueError(f"`device.peak` lacks the rate of {unpublished[0]}: add it, or take {unpublished[0]} from `precisions`")
        return self


OLDER_NAMES = {("gates", "max_accuracy_drop"): ("gates", "max_drop"), ("gates", "max_size_mb"): ("budget", "size_mb")}
"""By path of a key's old name, which files may still use, that of its new name."""


class Gates(Record):
    """Limits beside the budget that the finished engine must meet.

    Attributes:
        max_drop: Largest allowed drop of the task's metric from the dense network to the engine: of accuracy, mAP and mIoU a ratio 0-1, of RMSE a rise in
            the unit of the targets. The upper end of the paired 95 % interval on the test images must be no higher. For a classifier 189 images without
            any change prove 0.02, 381 prove 0.01. null: no limit, as ``training.reference: none`` requires. Formerly `max_accuracy_drop`.
        min_metric: Metric that the engine must have, whatever the dense network has: at least this ratio 0-1, of RMSE at most this error. The worse end of
            its 95 % interval on the test images must be no worse.
    """

    max_drop: Annotated[float, Field(ge=0)] | None = 0.02
    min_metric: Positive | None = None


def with_new_names(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile whose keys have today's names. A key that is there by both names stays, and is then unknown."""
    found = dict(profile)
    for (section, older), (new_section, name) in OLDER_NAMES.items():
        table, into = found.get(section), found.get(new_section, {})
        if isinstance(table, dict) and older in table and isinstance(into, dict) and name not in into:
            found[section] = {key: value for key, value in table.items() if key != older}
            found[new_section] = {**found.get(new_section, {}), name: table[older]}
    return found


class ReleaseGates(Record):
    """Limits against an earlier package, which `bonsai run --against PACKAGE` names.

    Attributes:
        max_drop: Largest allowed drop of the task's metric from the earlier engine to the new one on the same test images. Met where the upper end of the
            paired 95 % interval is no higher, missed where the lower end is higher, else undecided.
        max_slowdown: Latency of the new engine over the earlier one's, minus 1, at the budget's percentile; judged in the same way.
    """

    max_drop: Annotated[float, Field(ge=0)] = 0.02
    max_slowdown: Annotated[float, Field(ge=0)] = 0.05


class ChannelMultiple(Record):
    """Widths are multiples of this step, by precision: between two steps a kernel costs as much as at the next one.

    Attributes:
        fp32: Channels.
        fp16: Channels.
        int8: Channels.
    """

    fp32: Annotated[int, Field(ge=1)]
    fp16: Annotated[int, Field(ge=1)]
    int8: Annotated[int, Field(ge=1)]


class HardwareProfile(Record):
    """A target device, the runtime on it, and what the engine must achieve there.

    Attributes:
        name: Lower-case letters, digits, dots and hyphens; the second half of a package's name.
        description: One line for `bonsai list profiles` and the model card.
        tables: Latency tables that `bonsai characterize` measured on such a device: names of `bonsai list tables`, or ``.csv`` files, relative to the
            profile's file.
        points: Other batch sizes or numbers of threads of the device, at each of which the same engine must meet a budget too. Every point is measured.
        search_precision: Grow a branch per precision of the target, and ship the one of best validation accuracy that meets the gates.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    description: str
    target: Target
    channel_multiple: ChannelMultiple
    budget: Budget
    points: Annotated[tuple[Point, ...], Field(exclude_if=lambda points: not points)] = ()  # without points a profile is the one it was before there were any
    gates: Gates = Gates()
    against: ReleaseGates = ReleaseGates()
    tables: tuple[str, ...] = ()
    search_precision: bool = False

    @model_validator(mode="before")
    @classmethod
    def _todays_names(cls, given: Any) -> Any:
        return with_new_names(given) if isinstance(given, dict) else given

    @field_validator("points")
    @classmethod
    def _other_than_the_target(cls, points: tuple[Point, ...], others: ValidationInfo) -> tuple[Point, ...]:
        target: Target | None = others.data.get("target")
        if target is not None:
            taken = {(target.batch, target.threads): "which is the target itself: `budget` is its budget"}
            for point in points:
                _require_possible(point, target)
                place = (point.batch or target.batch, point.threads or target.threads)
                if place in taken:
                    batch, threads = place
                    raise ValueError(f"batch sizes and numbers of threads that differ. A point is at batch {batch}, threads {threads}, {taken[place]}")
                taken[place] = "and another point is too"
        return points

    def variants(self) -> "tuple[HardwareProfile, ...]":
        """Return the profile at each precision that is to be tried."""
        precisions = self.target.precisions if self.search_precision else (self.target.precision,)
        return tuple(self.model_copy(update={"target": self.target.at(precision)}) for precision in precisions)

    def at_points(self) -> "dict[str, HardwareProfile]":
        """Return the profile at each of its points, by the point's label: it has the point's name, batch, threads and budget."""
        found = {}
        for point in self.points:
            target = self.target.model_copy(update=point.model_dump(include={"batch", "threads"}, exclude_none=True))
            found[point.label] = self.model_copy(update={"name": f"{self.name} at {point.label}", "target": target, "budget": point.budget, "points": ()})
        return found

    @property
    def asked(self) -> str:
        """The budget, and that of every point, in one line."""
        return "; ".join([str(self.budget), *(f"at {point.label} {point.budget}" for point in self.points)])

    @property
    def most_images(self) -> int:
        """The largest number of images per inference: the target's, or that of a point."""
        return max([self.target.batch, *(point.batch for point in self.points if point.batch is not None)])

    @property
    def alone(self) -> "HardwareProfile":
        """The profile without its limits against an earlier package: what is measured does not depend on them."""
        return self.model_copy(update={"against": ReleaseGates()})

    @property
    def width_step(self) -> int:
        """The channel multiple at the target's precision."""
        return int(getattr(self.channel_multiple, self.target.precision))


def _require_possible(point: Point, target: Target) -> None:
    """Refuse a point that one engine of the target cannot be run at.

    Raises:
        ValueError: With what is allowed.
    """
    if point.threads is not None and target.device.kind == "gpu":
        raise ValueError("`batch` alone: `threads` are those of a CPU, and the device is a GPU")
    if point.batch not in (None, target.batch) and target.runtime == "openvino":
        raise ValueError("`threads` alone: openvino compiles an engine for one batch, and runs any other in several inferences")
    if point.batch is not None and point.batch > target.batch and target.runtime in SIZED:
        raise ValueError(f"at most batch {target.batch}: {target.runtime} builds an engine for up to `target.batch` images, and the point has {point.batch}")
