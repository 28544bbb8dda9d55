"""The CPU of this machine, for the backends that run on it."""

import os
import platform

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Target
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.machine import read_cpu

FULL_ACCUMULATION = {"avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm"}
"""Instruction sets whose products of 8-bit numbers do not saturate at 16 bits."""


def describe_cpu(target: Target, runtime_version: str) -> DeviceInfo:
    """Return this machine's CPU for ``host``; any other target as its profile describes it, with `present` false.

    Only ``host`` is measured: a CPU that runs the same instructions, and even one of the same name, may be clocked or cooled otherwise.
    """
    name, isa = read_cpu()
    return DeviceInfo(
        device=name if target.device.is_host else target.device.name,
        isa=isa if target.device.is_host else target.device.isa,
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        runtime=target.runs_on,
        runtime_version=runtime_version,
        present=target.device.is_host,
    )


def require_cpu(target: Target) -> None:
    """Refuse what a CPU backend cannot do.

    Raises:
        ConfigError: The device is no CPU, or the precision neither FP32 nor INT8.
    """
    if target.device.kind != "cpu" or target.precision == "fp16":
        raise ConfigError(
            describe(
                f"runtime {target.runs_on!r} cannot serve this target",
                given=f"{target.device.kind}, {target.precision}",
                allowed="cpu with fp32 or int8 (Bonsai makes no fp16 engines for a cpu)",
                fix="change target.precision, or target.runtime to tensorrt or tensorrt-rtx for a gpu",
            )
        )


def weight_bits_on(info: DeviceInfo) -> int:
    """Return 8, or 7 where the CPU is unknown or its 8-bit products saturate (x86 without VNNI or AMX)."""
    return 8 if FULL_ACCUMULATION & set(info.isa) else 7
