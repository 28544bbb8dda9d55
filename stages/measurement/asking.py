"""Asks a device to time engines, and tells the user if it was slowed down meanwhile."""

from collections.abc import Mapping

import numpy as np

from bonsai.profiles.schema import Target
from bonsai.stages.backends.device import Timing, TimingProtocol
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.training.progress import say


def time_on_device(target: Target, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray], protocol: TimingProtocol) -> Timing:
    """Time engines on a target's device; arguments and errors as for `Device.time`."""
    timing = device_of(target).time(engines, inputs, protocol)
    if timing.conditions is not None and timing.conditions.warning:
        say(f"warning: while {', '.join(engines)} {'was' if len(engines) == 1 else 'were'} timed, {timing.conditions.warning}")
    return timing
