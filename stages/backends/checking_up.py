"""Reads what there is to tell of this machine."""

import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from bonsai.stages.backends.checkup import Checkup
from bonsai.stages.backends.condition import read_condition
from bonsai.stages.backends.emulation import emulated
from bonsai.stages.backends.machine import this_machine
from bonsai.stages.backends.registry import BACKENDS
from bonsai.stages.backends.system_files import text_in
from bonsai.stages.imports.registry import resolve

MEMORY = Path("/proc/meminfo")
BONSAI = "bonsai-compress"


def check_up() -> Checkup:
    """Return what there is to tell of this machine."""
    machine = this_machine()
    total, free = _memory()
    return Checkup(
        machine=machine,
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine.cores,
        condition=read_condition(gpu=bool(machine.gpus)),
        memory_bytes=total,
        free_bytes=free,
        python=platform.python_version(),
        installed=dict(_installed()),
        emulated=emulated(),
    )


def _memory() -> tuple[int | None, int | None]:
    """Return the bytes of main memory, and those that are free."""
    fields = dict(line.split(":", 1) for line in (text_in(MEMORY) or "").splitlines() if ":" in line)
    found = [int(fields[key].split()[0]) * 1024 if key in fields else None for key in ("MemTotal", "MemAvailable")]
    return found[0], found[1]


def _installed() -> Iterator[tuple[str, str]]:
    """Yield Bonsai's version, and that of every runtime that is installed."""
    packages = dict.fromkeys(resolve(name, BACKENDS, "backend").package for name in BACKENDS)
    for name in (BONSAI, *packages):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
