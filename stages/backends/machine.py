"""Describes this machine: its system, its CPU, its NVIDIA GPUs and their driver."""

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple, get_args

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Isa

ARCHITECTURES = {"arm64": "aarch64", "AMD64": "x86_64"}
"""Names of other systems for aarch64 and x86_64, and Linux's name."""


class Gpu(NamedTuple):
    """A GPU in this machine, as the driver describes it."""

    name: str
    sm: str
    uuid: str


class Machine(Record):
    """A machine that may run an engine.

    Attributes:
        system: Operating system, such as ``Linux``.
        architecture: Architecture of the CPU: ``x86_64``, ``aarch64``.
        cpu: Its name.
        isa: Those of its instruction sets that matter to kernels.
        driver: Version of NVIDIA's driver; None where there is no GPU of theirs.
    """

    system: str
    architecture: str
    cpu: str
    isa: tuple[Isa, ...]
    cores: int
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None


def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    name, isa = read_cpu()
    return Machine(
        system=platform.system(),
        architecture=ARCHITECTURES.get(platform.machine(), platform.machine()),
        cpu=name,
        isa=isa,
        cores=os.cpu_count() or 1,
        gpus=list_gpus(),
        driver=nvidia_driver(),
    )


def read_cpu() -> tuple[str, tuple[Isa, ...]]:
    """Return the CPU's name and instruction sets, from /proc/cpuinfo where there is one."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine(), ("asimd",) if platform.machine() in {"arm64", "aarch64"} else ()
    fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(named.get("flags", named.get("Features", "")).split())
    return named.get("model name", platform.machine()), tuple(flag for flag in get_args(Isa) if flag in flags)


def list_gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs of this machine, in the driver's order; none where the driver's tool is missing or fails."""
    return parse_gpus(query_gpus("name,compute_cap,uuid"))


def nvidia_driver() -> str | None:
    """Return the version of NVIDIA's driver, which all their GPUs in a machine share; None where there is none."""
    versions = query_gpus("driver_version").split()
    return versions[0] if versions else None


def parse_gpus(listing: str) -> tuple[Gpu, ...]:
    """Read nvidia-smi's lines ``name, compute capability, uuid``."""
    return tuple(Gpu(*line.rsplit(", ", 2)) for line in listing.splitlines() if line.strip())


def plain_name(gpu: str) -> str:
    """Return a GPU's name without its vendor, as profiles have it."""
    return gpu.removeprefix("NVIDIA ")


def query_gpus(fields: str) -> str:
    """Return what nvidia-smi says of every GPU, a line each; empty where it is missing, or refuses a field."""
    return tool_output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")


def tool_output(tool: str, *arguments: str) -> str:
    """Return what a program of the system prints; empty where it is missing or fails."""
    found = shutil.which(tool)
    if found is None:
        return ""
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""
