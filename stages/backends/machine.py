"""Describes this machine: its system, its CPU, its NVIDIA GPUs and their driver."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, get_args

from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import Isa
from bonsai.stages.backends.emulation import label
from bonsai.stages.backends.system_files import text_in

ARCHITECTURES = {"arm64": "aarch64", "AMD64": "x86_64"}
"""Names of other systems for aarch64 and x86_64, and Linux's name."""
ARM_BITS: Mapping[Isa, tuple[int, int]] = {"asimd": (16, 1), "asimddp": (16, 20), "i8mm": (26, 13)}
"""By instruction set of Arm, the word of the auxiliary vector and the bit in it that tell it (Linux, `asm/hwcap.h`)."""
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
    """Return the CPU's name and instruction sets, as Linux tells them; the name of one that is emulated says so."""
    text = text_in(Path("/proc/cpuinfo")) or ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    name = label(named.get("model name") or _board(named))
    if ARCHITECTURES.get(platform.machine(), platform.machine()) == "aarch64":
        return name, _arm_isa()
    flags = set(named.get("flags", "").split())
    return name, tuple(flag for flag in get_args(Isa) if flag in flags)


def _arm_isa() -> tuple[Isa, ...]:
    """Return an Arm CPU's instruction sets, as the kernel hands them to every process, even where there is no /proc."""
    if sys.platform != "linux":
        return ("asimd",)
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return tuple(flag for flag, (word, bit) in ARM_BITS.items() if getauxval(word) >> bit & 1)


def _board(cpuinfo: Mapping[str, str]) -> str:
    """Return the name of a board whose CPU has none, as those of Arm: by it two boards are told apart."""
    parts = [f"{key.removeprefix('CPU ')} {cpuinfo[key]}" for key in ("CPU implementer", "CPU part") if key in cpuinfo]
    model = BOARD.read_text(errors="replace").strip("\0\n ") if BOARD.exists() else cpuinfo.get("Model", "")
    return ", ".join(filter(None, [model, " ".join([platform.machine(), *parts])]))


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
