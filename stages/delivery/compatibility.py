"""Describes the machine that an engine needs, and finds the first requirement that a machine does not meet."""

from collections.abc import Iterator
from typing import Annotated, Literal

from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import AfterValidator, Field

from bonsai.profiles.errors import describe
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Isa, Target
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.machine import ARCHITECTURES, Machine, plain_name

REBUILD = "give the engine the machine that it is for, or let Bonsai build one for this machine"
ANY_SYSTEM = ("tensorrt-rtx",)
"""Runtimes whose engines are portable between Linux and Windows, by their vendor's documentation ("CPU-only AOT and TensorRT-RTX engines")."""
SAME_MINOR = ("onnxruntime", "onnxruntime-openvino", "onnxruntime-gpu")
"""Runtimes whose patch releases keep the operators of a saved graph. Nothing is promised across minor ones, since an optimised graph holds
operators of the runtime's own. An engine of any other runtime is valid for the very version that built it, which TensorRT and TensorRT for RTX
document ("Engine Compatibility")."""


Distribution = Literal["onnxruntime", "onnxruntime-openvino", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx"]
"""Every runtime that an engine may need. What a package names is looked up, and said to be installed: any name would do for a stranger's."""


def _versions(text: str) -> str:
    """Return a version specifier that is one; pydantic names the key where it is not."""
    SpecifierSet(text)
    return text


def _version(text: str) -> str:
    Version(text)
    return text


class Compatibility(Record):
    """Requirements of an engine on a machine. They follow from its runtime and from the machine that it was built on.

    Attributes:
        device: The GPU or CPU that it was built for, by name.
        sm: Compute capability of that GPU; None for a CPU.
        runtime: Distribution that runs it.
        built_with: Version of it that built the engine.
        runtime_versions: Versions of it that the engine is valid for, as in a Python requirement.
        system: Operating system; None if any will do, or if the engine was built for a CPU that this machine does not have.
        architecture: Architecture of the CPU; None if any will do.
        isa: Instruction sets that the CPU must have.
        excluded_isa: Instruction sets that it must not have: with them the runtime lays weights out in wider blocks.
        driver: NVIDIA's driver that the engine was run with, the oldest to use; None where it was not run.
        threads: CPU threads that it uses.
        batch: Fewest and most images per inference that it was built for or judged at; only TensorRT refuses more.
    """

    device: str
    sm: str | None
    runtime: Distribution
    built_with: str
    runtime_versions: Annotated[str, Field(max_length=200), AfterValidator(_versions)]
    system: str | None
    architecture: str | None
    isa: tuple[Isa, ...]
    excluded_isa: tuple[Isa, ...]
    driver: Annotated[str, AfterValidator(_version)] | None
    threads: Annotated[int, Field(ge=1)]
    batch: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]

    @property
    def sentence(self) -> str:
        """What is needed, in one line."""
        machine = " ".join(part for part in (self.system, self.architecture) if part)
        without = f"without {', '.join(self.excluded_isa)}" if self.excluded_isa else ""
        processor = f"{self.device} (sm {self.sm})" if self.sm else ", ".join(self.isa)
        driver = f"NVIDIA driver {self.driver} or newer" if self.driver else ""
        parts = (f"{self.runtime} {self.runtime_versions}", machine, processor, without, driver, f"{self.threads} CPU thread(s)")
        images = "1 image" if self.batch == (1, 1) else f"{self.batch[0]} to {self.batch[1]} images"
        return f"{', '.join(part for part in parts if part)}; built for {images} per inference"


def compatibility_of(engine: Engine, target: Target, runtime: str, *, most_images: int) -> Compatibility:
    """Return what an engine needs.

    Args:
        engine: Result of the stage `compile`.
        target: The target that it was built for.
        runtime: Distribution that runs it.
        most_images: The largest batch that it is for: the target's, or that of a point of the profile.
    """
    info, device = engine.info, target.device
    built_on, architecture = info.system.split(" ", 1)
    is_gpu, is_elsewhere = device.kind == "gpu", device.kind == "cpu" and not info.present
    if is_elsewhere:
        architecture = "aarch64" if "asimd" in device.isa else "x86_64"
    is_portable = runtime in ANY_SYSTEM
    return Compatibility(
        device=info.device,
        sm=device.sm,
        runtime=runtime,
        built_with=info.runtime_version,
        runtime_versions=versions_like(runtime, info.runtime_version),
        system=None if is_portable or is_elsewhere else built_on,
        architecture=None if is_portable else ARCHITECTURES.get(architecture, architecture),
        isa=() if is_gpu else info.isa,
        excluded_isa=("avx512f",) if device.kind == "cpu" and info.present and "avx512f" not in info.isa and "avx2" in info.isa else (),
        driver=info.driver,
        threads=target.threads,
        batch=(1, most_images),
    )


def versions_like(runtime: str, version: str) -> str:
    """Return the versions of a runtime that an engine built with `version` is valid for."""
    built = Version(version)
    return f"=={built.major}.{built.minor}.*" if runtime in SAME_MINOR else f"=={version}"


def find_absence(needed: Compatibility, here: Machine) -> str | None:
    """Return why nothing of the engine's kind can be run on a machine, or None where it is to be compared.

    A GPU's engine is absent where there is no GPU, one that was built elsewhere for a named CPU where the CPU has another architecture.
    """
    if needed.sm is not None:
        return None if here.gpus else f"{needed.device} is not in this machine, nor any other NVIDIA GPU"
    if needed.system is None and needed.architecture != here.architecture:
        return f"{needed.device} is not in this machine, whose CPU is {here.architecture}"
    return None


def list_differences(needed: Compatibility, here: Machine) -> Iterator[str]:
    """Yield each thing in which a machine is not what an engine needs, worded for the user."""
    if needed.system not in (None, here.system):
        yield describe("the operating system is another", given=here.system, allowed=str(needed.system), fix=REBUILD)
    if needed.architecture not in (None, here.architecture):
        yield describe("the CPU has another architecture", given=here.architecture, allowed=str(needed.architecture), fix=REBUILD)
    missing = [flag for flag in needed.isa if flag not in here.isa]
    if missing:
        yield describe(f"the CPU lacks {missing[0]}", given=f"{here.cpu}: {', '.join(here.isa)}", allowed=f"a CPU with {', '.join(needed.isa)}", fix=REBUILD)
    wider = [flag for flag in needed.excluded_isa if flag in here.isa]
    if wider:
        problem = f"the CPU has {wider[0]}, for which the runtime lays weights out in wider blocks than this engine has"
        yield describe(problem, given=f"{here.cpu}: {', '.join(here.isa)}", allowed=f"a CPU without {wider[0]}", fix=REBUILD)
    if here.cores < needed.threads:
        yield describe("the machine has fewer cores than the engine has threads", given=here.cores, allowed=f"at least {needed.threads}", fix=REBUILD)
    if needed.sm is not None:
        yield from _gpu_differences(needed, here)


def runtime_difference(needed: Compatibility, installed: str) -> str | None:
    """Return in what the runtime that is installed differs from what an engine is valid for, or None."""
    if Version(installed) in SpecifierSet(needed.runtime_versions, prereleases=True):
        return None
    return describe(
        f"the engine is not valid for this version of {needed.runtime}",
        given=installed,
        allowed=f"{needed.runtime_versions} (built with {needed.built_with})",
        fix=f"pip install '{needed.runtime}{needed.runtime_versions}', or build the engine again from model.onnx",
    )


def _gpu_differences(needed: Compatibility, here: Machine) -> Iterator[str]:
    given = ", ".join(f"{gpu.name} (sm {gpu.sm})" for gpu in here.gpus)
    if needed.sm not in {gpu.sm for gpu in here.gpus}:
        yield describe("no GPU has the compute capability that the engine was built for", given=given, allowed=f"sm {needed.sm}", fix=REBUILD)
    elif plain_name(needed.device) not in {plain_name(gpu.name) for gpu in here.gpus}:
        yield describe("no GPU is of the model that the engine was built for", given=given, allowed=needed.device, fix=REBUILD)
    if needed.driver is not None and here.driver is not None and Version(here.driver) < Version(needed.driver):
        yield describe(
            "NVIDIA's driver is older than the one that the engine was run with",
            given=here.driver,
            allowed=f"{needed.driver} or newer",
            fix="update the driver, or build the engine again on this machine",
        )
