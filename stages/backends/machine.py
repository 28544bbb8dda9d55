"""Describes this machine: its system, its CPU, its NVIDIA GPUs and their driver."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, get_args

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Isa

ARCHITECTURES = {"arm64": "aarch64", "AMD64": "x86_64"}
"""Names of other systems for aarch64 and x86_64, and Linux's name."""


BOARD = Path("/proc/device-tree/model")
"""File in which Linux tells the name of a board."""


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
    return named.get("model name") or _board(named), tuple(flag for flag in get_args(Isa) if flag in flags)


def _board(cpuinfo: Mapping[str, str]) -> str:
    """Return the name of a board whose CPU has none, as those of Arm: by it two boards are told apart."""
    parts = [f"{key.removeprefix('CPU ')} {cpuinfo[key]}" for key in ("CPU implementer", "CPU part") if key in cpuinfo]
    model = BOARD.read_text(errors="replace").strip("\0\n ") if BOARD.exists() else cpuinfo.get("Model", "")
    return ", ".join(filter(None, [model, " ".join([platform.machine(), *parts])]))


def list_gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs of this machine, in the driver's order; none where the driver's tool is missing or fails."""
    return parse_gpus(_query_gpus("name,compute_cap,uuid"))


def nvidia_driver() -> str | None:
    """Return the version of NVIDIA's driver, which all their GPUs in a machine share; None where there is none."""
    versions = _query_gpus("driver_version").split()
    return versions[0] if versions else None


def parse_gpus(listing: str) -> tuple[Gpu, ...]:
    """Read nvidia-smi's lines ``name, compute capability, uuid``."""
    return tuple(Gpu(*line.rsplit(", ", 2)) for line in listing.splitlines() if line.strip())


def plain_name(gpu: str) -> str:
    """Return a GPU's name without its vendor, as profiles have it."""
    return gpu.removeprefix("NVIDIA ")


def _query_gpus(fields: str) -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    listing = subprocess.run([tool, f"--query-gpu={fields}", "--format=csv,noheader"], capture_output=True, text=True, check=False)
    return listing.stdout if listing.returncode == 0 else ""
