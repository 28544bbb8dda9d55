"""Names the devices, and finds that of a target. A device is imported when it is first asked for."""

from bonsai.profiles.schema import Target
from bonsai.stages.backends.device import Device
from bonsai.stages.imports.registry import resolve

DEVICES = {"local": "bonsai.stages.backends.local_device:local"}
"""Import strings of objects that implement `Device`."""


def device_of(target: Target) -> Device:
    """Return the device that builds, times and runs engines for a target. There is one yet: this machine."""
    device: Device = resolve("local", DEVICES, "device")
    return device
