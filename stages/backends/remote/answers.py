"""What the device does when it is asked: each verb, by its own `LocalDevice`."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import Target
from bonsai.stages.backends.device import OperatorPoint, TimingProtocol
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.local_device import local
from bonsai.stages.backends.machine import this_machine
from bonsai.stages.backends.remote.files import Files, Sent
from bonsai.stages.backends.remote.frames import CHUNK, ConnectionLost, Frame, pack, unpack
from bonsai.stages.backends.remote.timings import written
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.tensorrt_build import TIMING_CACHE

Answer = Iterator[tuple[Any, bytes]]
"""Values that JSON can hold, each with arrays or a part of a file."""
ENGINE, GRAPH, TIMINGS, FILE = "engine", "graph", "timing_cache", "file"
"""Roles of the files of a request."""


class Asked(NamedTuple):
    """A request.

    Attributes:
        arguments: As the verb takes them.
        files: Files that it needs, by their role.
        body: Arrays.
    """

    verb: str
    arguments: dict[str, Any]
    by_role: dict[str, Sent]
    body: bytes

    @classmethod
    def of(cls, frame: Frame) -> "Asked":
        """Read a frame."""
        header = frame.header
        files = {role: Sent.model_validate(file) for role, file in header["files"].items()}
        return cls(header["verb"], header["arguments"], files, frame.body)

    @property
    def files(self) -> list[Sent]:
        """All files of the request."""
        return list(self.by_role.values())

    @property
    def target(self) -> Target:
        """Its target."""
        return Target.model_validate(self.arguments["target"])


class Sitting:
    """What an agent keeps from one request to the next.

    Args:
        files: The cache.
        held: Holds the machine's lock for timing.
        next_frame: Returns the next frame of the host, a part of a file.
    """

    def __init__(self, files: Files, held: ExitStack, next_frame: Callable[[], Frame]) -> None:
        self.files, self.held, self.next_frame = files, held, next_frame
        self._opened: tuple[str, Run] | None = None

    def engine(self, asked: Asked, role: str = ENGINE, target: Mapping[str, Any] | None = None) -> EngineFile:
        """Return an engine whose hash was found right just now."""
        wanted = Target.model_validate(target) if target is not None else asked.target
        return EngineFile(file=self.files.path_of(asked.by_role[role]), target=wanted)

    def opened(self, asked: Asked) -> Run:
        """Return a loaded engine; the last one stays loaded."""
        name = asked.by_role[ENGINE].sha256 + asked.target.identity()
        if self._opened is None or self._opened[0] != name:
            self._opened = None  # first, for its memory
            self._opened = (name, local.open(self.engine(asked)))
        return self._opened[1]

    def close_engine(self) -> None:
        """Free the loaded engine, which would be in the way of what is timed or built."""
        self._opened = None


def _describe(_: Sitting, asked: Asked) -> Answer:
    yield local.describe(asked.target).model_dump(mode="json"), b""


def _machine(_: Sitting, _asked: Asked) -> Answer:
    yield this_machine().model_dump(mode="json"), b""


def _ping(_: Sitting, _asked: Asked) -> Answer:
    yield None, b""


def _check_up(_: Sitting, _asked: Asked) -> Answer:
    yield local.check_up().model_dump(mode="json"), b""


def _build(sitting: Sitting, asked: Asked) -> Answer:
    """Build in a folder of its own; what was built stays in the cache, and the host fetches it from there."""
    sitting.close_engine()
    sitting.files.make_room(asked.files)
    graph, target = asked.by_role[GRAPH], asked.target
    if TIMINGS in asked.by_role:
        target = target.model_copy(update={"timing_cache": str(sitting.files.path_of(asked.by_role[TIMINGS]))})
    with sitting.files.work_folder() as work:
        folder = Path(work)
        shutil.copyfile(sitting.files.path_of(graph), folder / graph.name)
        built = local.build(folder / graph.name, folder, target, tuple(asked.arguments["image_shape"]))
        made = [folder / name for name in dict.fromkeys((built.file, TIMING_CACHE)) if (folder / name).is_file()]
        files = [sitting.files.take(file).model_dump() for file in made]
    yield {"built": built.model_dump(mode="json"), "files": files}, b""


def _run(sitting: Sitting, asked: Asked) -> Answer:
    batches = unpack(asked.body)
    if asked.arguments["untried"]:
        sitting.close_engine()
        outputs = list(local.run(sitting.engine(asked), batches, untried=True))
    else:
        run = sitting.opened(asked)
        outputs = [np.asarray(run(batch)) for batch in batches]
    yield None, pack(outputs)


def _time(sitting: Sitting, asked: Asked) -> Answer:
    engines, inputs = _several(sitting, asked)
    yield written(local.time(engines, inputs, TimingProtocol.model_validate(asked.arguments["protocol"])))


def _operators(sitting: Sitting, asked: Asked) -> Answer:
    sitting.close_engine()
    points = [OperatorPoint(OperatorClass.model_validate(operator), ci, co) for operator, ci, co in asked.arguments["points"]]
    for measured in local.operators(points, asked.target):
        yield measured.model_dump(mode="json"), b""


def _kernels(sitting: Sitting, asked: Asked) -> Answer:
    sitting.close_engine()
    (inputs,) = unpack(asked.body)
    yield [kernel.model_dump(mode="json") for kernel in local.kernels(sitting.engine(asked), inputs)], b""


def _kernel_times(sitting: Sitting, asked: Asked) -> Answer:
    found = local.kernel_times(*_several(sitting, asked))
    yield {name: [kernel.model_dump(mode="json") for kernel in kernels] for name, kernels in found.items()}, b""


def _several(sitting: Sitting, asked: Asked) -> tuple[dict[str, EngineFile], dict[str, np.ndarray]]:
    """Return the engines of a request by name, and the batch of each."""
    sitting.close_engine()
    targets, inputs, arrays = asked.arguments["targets"], asked.arguments["inputs"], unpack(asked.body)
    return {name: sitting.engine(asked, name, target) for name, target in targets.items()}, {name: arrays[place] for name, place in inputs.items()}


def _dissect(sitting: Sitting, asked: Asked) -> Answer:
    sitting.close_engine()
    (inputs,) = unpack(asked.body)
    parts = local.dissect(sitting.engine(asked), inputs)
    yield parts.layers, pack([parts.milliseconds])


def _hold(sitting: Sitting, _asked: Asked) -> Answer:
    """Hold this machine's lock for timing; the kernel frees it where the agent ends."""
    sitting.held.close()
    sitting.held.enter_context(local.hold())
    yield None, b""


def _release(sitting: Sitting, _asked: Asked) -> Answer:
    sitting.held.close()
    yield None, b""


def _put(sitting: Sitting, asked: Asked) -> Answer:
    """Receive a file from where it was cut off; its parts follow as frames."""
    file, offset = asked.by_role[FILE], int(asked.arguments["offset"])
    sitting.files.make_room(asked.files)
    while True:
        part = sitting.next_frame()
        if "part" not in part.header:
            raise ConnectionLost("a part of a file was expected")
        sitting.files.append(file, offset, part.body)
        offset += len(part.body)
        if offset >= file.size:
            break
    yield None, b""


def _get(sitting: Sitting, asked: Asked) -> Answer:
    """Send a file from an offset on, part by part."""
    with sitting.files.path_of(asked.by_role[FILE]).open("rb") as stream:
        stream.seek(int(asked.arguments["offset"]))
        while part := stream.read(CHUNK):
            yield None, part


def _verify(sitting: Sitting, asked: Asked) -> Answer:
    """Check a package here, all of whose files were sent."""
    sitting.close_engine()
    with sitting.files.work_folder() as work:
        folder = Path(work) / str(asked.arguments["name"])
        for role, file in asked.by_role.items():
            place = folder / role
            if ".." in PurePosixPath(role).parts or not place.is_relative_to(folder):
                raise ConnectionLost(f"no name of a file in a package: {role}")
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(sitting.files.path_of(file), place)
        yield local.verify(folder), b""


VERBS: dict[str, Callable[[Sitting, Asked], Answer]] = {
    verb.__name__.removeprefix("_"): verb
    for verb in (
        _describe,
        _machine,
        _ping,
        _check_up,
        _build,
        _run,
        _time,
        _operators,
        _kernels,
        _kernel_times,
        _dissect,
        _hold,
        _release,
        _put,
        _get,
        _verify,
    )
}
"""By name, what a host may ask for."""
