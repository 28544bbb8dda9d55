"""A device with fixed answers, for tests of what the host makes of them. `toy_device.py` is one that really runs engines."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest

from bonsai.profiles.schema import Target
from bonsai.stages.backends.device import Timing, TimingProtocol
from bonsai.stages.backends.devices import DEVICES
from bonsai.stages.backends.engine import DeviceInfo, EngineFile
from bonsai.stages.measurement.measurements import KernelShare
from bonsai.stages.measurement.samples import turn_count

Answer = Callable[[np.ndarray], np.ndarray]


class ScriptedDevice:
    """Knows an engine by the name of its folder, and builds none.

    Args:
        answers: By engine, a function from a batch to its outputs.
        milliseconds: By engine, the time of one run.
    """

    def __init__(self, answers: Mapping[str, Answer] | None = None, milliseconds: Mapping[str, float] | None = None) -> None:
        self.answers, self.milliseconds = answers or {}, milliseconds or {}

    def describe(self, target: Target) -> DeviceInfo:
        facts = {"isa": (), "cores": 1, "system": "Linux", "runtime": target.runtime, "runtime_version": "1", "present": target.device.is_host}
        return DeviceInfo.model_validate({"device": target.device.name, **facts})

    def hold(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, engine: EngineFile, batches: Iterable[np.ndarray], *, untried: bool = False) -> Iterator[np.ndarray]:
        return map(self.answers[engine.file.parent.name], batches)

    def open(self, engine: EngineFile) -> Answer:
        return self.answers[engine.file.parent.name]

    def time(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray], protocol: TimingProtocol) -> Timing:
        spread = 1 + 0.001 * np.sin(np.arange(protocol.timing.runs))
        samples = {name: np.stack([spread * self.milliseconds[engine.file.parent.name] * 1e6] * 2).astype(np.int64) for name, engine in engines.items()}
        return Timing(samples, turn_count(protocol.timing))

    def kernels(self, engine: EngineFile, inputs: np.ndarray) -> tuple[KernelShare, ...]:
        return (KernelShare(op="scripted", precision="float", count=1, share=1.0),)


def use(device: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every target mean this device."""
    monkeypatch.setattr(f"{__name__}.current", device)
    monkeypatch.setitem(DEVICES, "local", f"{__name__}:current")


current: object = None
