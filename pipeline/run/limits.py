"""Refuses, before training, limits of a budget that cannot be judged."""

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.measurement.tail import RUNS

MEASURED = ("p99_ms", "memory_mb", "energy_mj")
"""Keys of a budget that nothing estimates."""


def require_measurable(profile: HardwareProfile, info: DeviceInfo) -> None:
    """Check that the device can be asked for everything that the budget limits.

    Raises:
        ConfigError: The budget limits what is only measured, or the profile has points, and the device is not here; or memory, and the device is a GPU.
    """
    if profile.points and not info.present:
        problem = f"profile {profile.name}: points are measured, never estimated, and {profile.target.device.name} is not in this machine"
        given = f"points at {', '.join(point.label for point in profile.points)}"
        fix = "give the profile the device's address (docs/devices.md), run this on the device, or remove `points`"
        raise ConfigError(describe(problem, given=given, allowed="points of a device that is here or has an address", fix=fix))
    limits = [f"budget.{key} {limit:g}" for key in MEASURED if (limit := getattr(profile.budget, key)) is not None]
    if limits and not info.present:
        problem = f"profile {profile.name}: the budget limits what cannot be estimated, and {profile.target.device.name} is not in this machine"
        fix = f"run this on the device, or remove {', '.join(limit.split()[0] for limit in limits)}"
        raise ConfigError(describe(problem, given=", ".join(limits), allowed="latency, latency_ms and size_mb without the device", fix=fix))
    if profile.budget.memory_mb is not None and profile.target.device.kind == "gpu":
        problem = f"profile {profile.name}: the memory of a GPU is not measured"
        fix = "remove budget.memory_mb; budget.size_mb bounds the engine file"
        raise ConfigError(describe(problem, given=f"budget.memory_mb {profile.budget.memory_mb:g}", allowed="budget.memory_mb for a CPU", fix=fix))


def require_runs(profile: HardwareProfile, timing: TimingConfig, limit_ms: float | None = None) -> None:
    """Check that a p99 gets enough runs.

    Args:
        profile: Profile with the budget.
        timing: The protocol.
        limit_ms: Latency of an engine that just meets its budget, in milliseconds; None while that is unknown.

    Raises:
        ConfigError: The engine would be run too rarely.
    """
    if profile.budget.p99_ms is None:
        return
    runs = timing.runs if limit_ms is None else min(timing.runs, int(timing.seconds * 1000 / limit_ms))
    if runs < RUNS:
        problem = f"profile {profile.name}: a p99 is not found from so few runs"
        given = (
            f"timing.runs {timing.runs}"
            if limit_ms is None or runs == timing.runs
            else f"{runs} runs of {limit_ms:.4g} ms in timing.seconds {timing.seconds:g}"
        )
        fix = f"set timing.runs to {RUNS} or more" if limit_ms is None else f"set timing.seconds to {RUNS * limit_ms / 1000:.3g} or more"
        raise ConfigError(describe(problem, given=given, allowed=f"{RUNS} runs or more", fix=f"{fix}, or remove budget.p99_ms"))
