"""Implements `Device` for another machine: what is asked here is done there, by that machine's own `LocalDevice`.

device = reach("ssh://pi@kitchen.local", "~/bonsai/bin/python")
"""

import atexit
import os
import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from bonsai.profiles.errors import describe
from bonsai.profiles.schema import Target
from bonsai.stages.backends.checkup import Checkup
from bonsai.stages.backends.device import Built, EngineParts, KernelTime, MeasuredOperator, OperatorPoint, Timing, TimingProtocol
from bonsai.stages.backends.engine import DeviceInfo, EngineFile
from bonsai.stages.backends.machine import Machine
from bonsai.stages.backends.remote.answers import ENGINE, GRAPH, TIMINGS
from bonsai.stages.backends.remote.files import Sent
from bonsai.stages.backends.remote.frames import ConnectionLost, pack, unpack
from bonsai.stages.backends.remote.line import Line, Request
from bonsai.stages.backends.remote.timings import read
from bonsai.stages.backends.running import Run
from bonsai.stages.errors import DeviceUnavailable
from bonsai.stages.measurement.measurements import KernelShare

PINGS = 7
"""Number of questions whose median time is the round trip."""
BATCHES, BYTES = 256, 8_000_000
"""Most batches, and about the most bytes of them, in one request: a round trip costs as much as many images."""


class RemoteDevice:
    """A machine that is reached over ssh.

    Args:
        address: ``ssh://[user@]host[:port]``.
        python: Python on the device that has Bonsai.
    """

    def __init__(self, address: str, python: str) -> None:
        self._line = Line(address, python)
        self._holding = threading.Lock()

    def describe(self, target: Target) -> DeviceInfo:
        """See `Device`.

        Raises:
            DeviceUnavailable: Also if nobody answers there, or it is another device than the profile's.
        """
        info = DeviceInfo.model_validate(self._line.ask(Request("describe", _target(target))).value)
        lacking = [flag for flag in target.device.isa if flag not in info.isa]
        if lacking or not info.present:
            lacks = f"lacks {', '.join(lacking)}" if lacking else "is not in this machine"
            raise DeviceUnavailable(
                describe(
                    f"{self._line.address}: the machine there is not the profile's device",
                    given=f"{info.device} with {', '.join(info.isa) or 'no instruction set that matters'}: {target.device.name} {lacks}",
                    allowed=f"{target.device.name} with {', '.join(target.device.isa)}" if lacking else f"a machine with a {target.device.name}",
                    fix="check target.device.address, or let the profile extend the one of that device",
                )
            )
        return info

    def machine(self) -> Machine:
        """See `Device`."""
        return Machine.model_validate(self._line.ask(Request("machine")).value)

    def check_up(self) -> Checkup:
        """See `Device`."""
        found = Checkup.model_validate(self._line.ask(Request("check_up")).value)
        return found.model_copy(update={"round_trip_ms": statistics.median(self._ping() for _ in range(PINGS)) * 1e3})

    def _ping(self) -> float:
        """Return the seconds of a question and its answer."""
        started = time.perf_counter()
        self._line.ask(Request("ping"))
        return time.perf_counter() - started

    @contextmanager
    def hold(self) -> Iterator[None]:
        """See `Device`. The device's own lock is held there: its kernel frees it where the connection ends, and it is taken again after that."""
        with self._holding:
            self._line.holds = True  # first: a connection that is opened from now on holds the device
            try:
                self._line.ask(Request("hold"))
                yield
            finally:
                self._line.holds = False
                self._line.release()

    def build(self, graph: Path, folder: Path, target: Target, image_shape: tuple[int, ...]) -> Built:
        """See `Device`. The engine stays on the device, too."""
        timings = {TIMINGS: Path(target.timing_cache)} if target.timing_cache else {}
        answer = self._line.ask(Request("build", {**_target(target), "image_shape": image_shape}, {GRAPH: graph, **timings})).value
        for file in answer["files"]:
            self._line.fetch(Sent.model_validate(file), folder)
        return Built.model_validate(answer["built"])

    def run(self, engine: EngineFile, batches: Iterable[np.ndarray], *, untried: bool = False) -> Iterator[np.ndarray]:
        """See `Device`."""
        together: list[np.ndarray] = []
        for batch in batches:
            together.append(batch)
            if not untried and (len(together) >= BATCHES or sum(one.nbytes for one in together) >= BYTES):
                yield from self._run(engine, together, untried=untried)
                together = []
        if together:
            yield from self._run(engine, together, untried=untried)

    def open(self, engine: EngineFile) -> Run:
        """See `Device`."""
        self._run(engine, [], untried=False)
        return lambda images: self._run(engine, [images], untried=False)[0]

    def time(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray], protocol: TimingProtocol) -> Timing:
        """See `Device`."""
        value, body = self._line.ask(_several("time", engines, inputs, protocol=protocol.model_dump(mode="json")))
        return read(value, body)

    def operators(self, points: Sequence[OperatorPoint], target: Target) -> Iterator[MeasuredOperator]:
        """See `Device`. If the connection is lost, only the points that were not measured are asked for again."""
        left = [[point.operator.model_dump(mode="json"), point.ci, point.co] for point in points]
        while left:
            try:
                for answered in self._line.stream(Request("operators", {**_target(target), "points": left})):
                    left = left[1:]
                    yield MeasuredOperator.model_validate(answered.value)
            except ConnectionLost as lost:
                self._line.recover(lost)

    def kernels(self, engine: EngineFile, inputs: np.ndarray) -> tuple[KernelShare, ...]:
        """See `Device`."""
        found = self._line.ask(Request("kernels", _target(engine.target), {ENGINE: engine.file}, pack([inputs]))).value
        return tuple(KernelShare.model_validate(kernel) for kernel in found)

    def kernel_times(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray]) -> dict[str, tuple[KernelTime, ...]]:
        """See `Device`."""
        found = self._line.ask(_several("kernel_times", engines, inputs)).value
        return {name: tuple(KernelTime.model_validate(kernel) for kernel in kernels) for name, kernels in found.items()}

    def dissect(self, engine: EngineFile, inputs: np.ndarray) -> EngineParts:
        """See `Device`."""
        layers, body = self._line.ask(Request("dissect", _target(engine.target), {ENGINE: engine.file}, pack([inputs])))
        return EngineParts(unpack(body)[0], layers)

    def verify(self, package: Path) -> list[str]:
        """See `Device`. All of the package is sent there."""
        files = {file.relative_to(package).as_posix(): file for file in sorted(package.rglob("*")) if file.is_file()}
        lines: list[str] = self._line.ask(Request("verify", {"name": package.name}, files)).value
        return lines

    def close(self) -> None:
        """End the connection."""
        self._line.close()

    def _run(self, engine: EngineFile, batches: Sequence[np.ndarray], *, untried: bool) -> list[np.ndarray]:
        request = Request("run", {**_target(engine.target), "untried": untried}, {ENGINE: engine.file}, pack(batches))
        return unpack(self._line.ask(request).body)


_reached: dict[tuple[int, str, str], RemoteDevice] = {}
_reaching = threading.Lock()


def reach(address: str, python: str) -> RemoteDevice:
    """Return the device at an address; one and the same in a process, since it has one connection. A fork of this process gets another."""
    with _reaching:
        return _reached.setdefault((os.getpid(), address, python), RemoteDevice(address, python))


@atexit.register
def _close() -> None:
    for (owner, *_), device in _reached.items():
        if owner == os.getpid():
            with suppress(OSError):
                device.close()


def _several(verb: str, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray], **arguments: object) -> Request:
    """Return a request for several engines, with one batch for each."""
    different = {id(batch): batch for batch in inputs.values()}  # each once, however many engines take it
    places = {one: place for place, one in enumerate(different)}
    asked = {
        "targets": {name: _there(engine.target) for name, engine in engines.items()},
        "inputs": {name: places[id(batch)] for name, batch in inputs.items()},
        **arguments,
    }
    return Request(verb, asked, {name: engine.file for name, engine in engines.items()}, pack(list(different.values())))


def _there(target: Target) -> dict[str, object]:
    there = target.as_there()
    return there.model_copy(update={"timing_cache": None}).model_dump(mode="json")


def _target(target: Target) -> dict[str, object]:
    return {"target": _there(target)}
