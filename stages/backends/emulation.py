"""Tells whether this process is run by an emulator of another CPU. Its results are right then, and its times say nothing.

    refuse_emulated()      # before a time is measured

An emulator of one process, such as `qemu-aarch64`, answers for the kernel and for the CPU, so neither `uname` nor a list of instruction sets gives it away.
It has no `ptrace`, since it would have to emulate two processes at once; every kernel of Linux has.
"""

import ctypes
import errno
import platform
import sys
from functools import cache
from pathlib import Path

from bonsai.profiles.errors import describe
from bonsai.stages.errors import DeviceUnavailable

PEEK = 1
"""Request of `ptrace` that reads the memory of a process. It is asked of none, so that it does nothing where it is known."""
NOBODY = -1
FOREIGN = {"x86_64": "CPU implementer", "aarch64": "vendor_id"}
"""By architecture, a field of /proc/cpuinfo that only a CPU of the other one has: an emulator shows the host's file."""
TCG = "QEMU TCG CPU"
"""Name of the CPU of a machine that QEMU emulates as a whole, on x86."""


@cache
def emulated() -> str:
    """Return what gives the emulator away; empty if nothing does."""
    if sys.platform != "linux":
        return ""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    return sign_of(platform.machine(), cpuinfo, _refusal_of_ptrace())


def sign_of(machine: str, cpuinfo: str, refusal: int) -> str:
    """Return the sign of an emulator in what a system tells; empty if there is none.

    Args:
        machine: Architecture, as `uname` tells it.
        cpuinfo: Text of /proc/cpuinfo; empty where there is none.
        refusal: Error number of a call of `ptrace` that names no process.
    """
    if refusal == errno.ENOSYS:
        return f"the {machine} kernel has no ptrace"
    foreign = FOREIGN.get(machine)
    if foreign is not None and any(line.startswith(foreign) for line in cpuinfo.splitlines()):
        return f"the system is {machine}, and its CPU has the field {foreign!r}"
    return f"the CPU is called {TCG!r}" if TCG in cpuinfo else ""


def refuse_emulated() -> None:
    """Refuse to measure a time under emulation.

    Raises:
        DeviceUnavailable: This process is run by an emulator.
    """
    sign = emulated()
    if sign:
        raise DeviceUnavailable(
            describe(
                "no time is measured here, because this machine is emulated",
                given=f"{platform.machine()} under an emulator ({sign})",
                allowed="the device itself, or a machine with its CPU",
                fix="measure on the device; what an engine computes can be checked here: `bonsai verify`, `bonsai predict`",
            )
        )


def _refusal_of_ptrace() -> int:
    """Return the error number that the kernel answers with; ESRCH, or EPERM where a container forbids the call."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace(ctypes.c_long(PEEK), ctypes.c_long(NOBODY), ctypes.c_void_p(), ctypes.c_void_p())
    return ctypes.get_errno()


def label(name: str) -> str:
    """Return the name of a CPU, marked where it is emulated."""
    return f"{name} (emulated)" if emulated() else name
