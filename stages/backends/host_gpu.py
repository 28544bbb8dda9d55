"""The NVIDIA GPU of this machine, for the backends that run on it."""

import os
import platform

from bonsai.profiles.errors import describe
from bonsai.profiles.schema import Hardware, Target
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.backends.machine import Gpu, list_gpus, nvidia_driver, plain_name
from bonsai.stages.errors import DeviceUnavailable


def describe_gpu(target: Target, runtime_version: str) -> DeviceInfo:
    """Return this machine's GPU of the target's model, or the target's name with `present` false."""
    gpu = find_gpu(target)
    return DeviceInfo(
        device=gpu.name if gpu else target.device.name,
        isa=(),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        runtime=target.runs_on,
        runtime_version=runtime_version,
        driver=nvidia_driver() if gpu else None,
        present=gpu is not None,
    )


def require_gpu(target: Target, purpose: str) -> Gpu:
    """Return this machine's GPU of the target's model.

    Args:
        target: Names the model.
        purpose: What is done with the target's engines: ``built`` or ``run``.

    Raises:
        DeviceUnavailable: There is none.
    """
    gpu = find_gpu(target)
    if gpu is None:
        raise DeviceUnavailable(
            describe(
                f"engines of runtime {target.runs_on!r} for {target.device.name} are {purpose} where the GPU is",
                given=", ".join(f"{gpu.name} (sm {gpu.sm})" for gpu in list_gpus()) or "no NVIDIA GPU that nvidia-smi lists",
                allowed=f"a {target.device.name} (sm {target.device.sm})",
                fix="give the profile the device's address (docs/devices.md), or run this on the device",
            )
        )
    return gpu


def find_gpu(target: Target) -> Gpu | None:
    """Return this machine's first GPU of the target's model; others of its compute capability are not as fast."""
    return next((gpu for gpu in list_gpus() if is_model(gpu, target.device)), None)


def is_model(gpu: Gpu, device: Hardware) -> bool:
    """Return whether `gpu` bears the device's very name: an A10 is no A10G, an L4 no L40S, a desktop's RTX 4090 no laptop's."""
    return gpu.sm == device.sm and plain_name(gpu.name) == plain_name(device.name)
