"""Names the devices, and finds that of a target. A device is imported when it is first asked for."""

from collections.abc import Mapping
from typing import Any

from bonsai.profiles.errors import describe
from bonsai.profiles.schema import HardwareProfile, Target
from bonsai.stages.backends.device import Device
from bonsai.stages.errors import DeviceUnavailable
from bonsai.stages.imports.registry import resolve

DEVICES = {"local": "bonsai.stages.backends.local_device:local", "ssh": "bonsai.stages.backends.remote.remote_device:reach"}
"""Import strings: of an object that implements `Device`, and of what returns one for an address and a Python there."""


def device_of(target: Target) -> Device:
    """Return the device that builds, times and runs engines for a target: the one at its address, or this machine."""
    address = target.device.address
    if address is None:
        device: Device = resolve("local", DEVICES, "device")
        return device
    reached: Device = resolve("ssh", DEVICES, "device")(address, target.device.python)
    return reached


def require_there(profile: HardwareProfile) -> None:
    """Refuse a profile whose device is neither at an address nor this machine.

    Raises:
        DeviceUnavailable: The device is elsewhere, and nothing says where; or it is a GPU, and its runtime is not installed.
    """
    target = profile.target
    hardware = target.device
    if hardware.address is not None or hardware.is_host or (hardware.kind == "gpu" and device_of(target).describe(target).present):
        return
    raise DeviceUnavailable(
        describe(
            f"profile {profile.name}: nothing says where its device is",
            given=f"{hardware.name}, which is not in this machine",
            allowed="a profile with target.device.address, or one of this machine such as local-cpu",
            fix="set target.device.address, such as ssh://pi@kitchen.local, or run this on the device with local-cpu",
        )
    )


def device_among(inputs: Mapping[str, Any]) -> Device:
    """Return the device that a stage with these inputs times on: that of its target or its profile; this machine where it has neither."""
    target = _target_among(inputs)
    device: Device = device_of(target) if target is not None else resolve("local", DEVICES, "device")
    return device


def address_among(inputs: Mapping[str, Any]) -> str | None:
    """Return the address of the device of a stage with these inputs; None for this machine."""
    target = _target_among(inputs)
    return target.device.address if target is not None else None


def _target_among(inputs: Mapping[str, Any]) -> Target | None:
    targets = (value.target if isinstance(value, HardwareProfile) else value for value in inputs.values() if isinstance(value, HardwareProfile | Target))
    return next(targets, None)
