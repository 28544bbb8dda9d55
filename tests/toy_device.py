"""A device as small as one can be: ONNX Runtime in another process, which is given bytes alone.

    with ToyDevice() as device:
        built = device.build(graph, folder, target, (1, 8, 8))

No object, file or module of this process reaches the other one. It gets its own copy of every engine, and has no torch. So a stage that works with this
device works with one over a network. Its engines are packed ONNX files, which nobody else can open.
"""

import os
import pickle
import platform
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from bonsai.profiles.errors import BonsaiError
from bonsai.profiles.latency import Entry
from bonsai.profiles.schema import Target
from bonsai.stages.backends.device import Built, EngineParts, KernelTime, MeasuredOperator, OperatorPoint, Timing, TimingProtocol
from bonsai.stages.backends.engine import DeviceInfo, EngineFile
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.names import INPUT
from bonsai.stages.graph.single_operator import single_operator_graph
from bonsai.stages.interpreter import run_file
from bonsai.stages.measurement.measurements import KernelShare
from bonsai.stages.measurement.samples import turn_count

ENGINE = "engine.toy"
OPERATOR_RUNS = 30
Feeds = Mapping[str, np.ndarray]


class Sent(NamedTuple):
    """An engine on its way to the other process.

    Attributes:
        name: Name of its file.
        content: Its bytes.
        threads: Threads to run it with.
    """

    name: str
    content: bytes
    threads: int


def sent(engine: EngineFile) -> Sent:
    return Sent(engine.file.name, engine.file.read_bytes(), engine.target.threads)


class OtherProcess:
    """Calls the functions below in a process that was started for them."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # the same code as here
        self._process = subprocess.Popen(run_file(Path(__file__)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def call(self, verb: str, *arguments: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump((verb, arguments), self._process.stdin)  # both ends are this file, so neither reads a stranger's pickle
        self._process.stdin.flush()
        answer = pickle.load(self._process.stdout)
        if isinstance(answer, BonsaiError):
            raise answer
        return answer

    def __enter__(self) -> "OtherProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # it ends where nothing more is asked


class ToyDevice:
    """See `Device`; `told` has what was asked of it, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._other = OtherProcess()

    def __enter__(self) -> "ToyDevice":
        return self

    def __exit__(self, *_: object) -> None:
        self._other.__exit__()

    def describe(self, target: Target) -> DeviceInfo:
        info: DeviceInfo = self._other.call("describe", target)
        return info

    def hold(self) -> AbstractContextManager[None]:
        self.told.append("hold")
        return nullcontext()

    def build(self, graph: Path, folder: Path, target: Target, image_shape: tuple[int, ...]) -> Built:
        self.told.append(f"build {graph.name}")
        (folder / ENGINE).write_bytes(self._other.call("build", graph.read_bytes(), image_shape))
        return Built(file=ENGINE, coverage={})

    def run(self, engine: EngineFile, batches: Iterable[np.ndarray], *, untried: bool = False) -> Iterator[np.ndarray]:
        self.told.append(f"{'try' if untried else 'run'} {engine.file.parent.name}")
        return iter(self._other.call("run", sent(engine), list(batches)))

    def open(self, engine: EngineFile) -> Run:
        return lambda images: next(self.run(engine, [images]))

    def time(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray], protocol: TimingProtocol) -> Timing:
        names = ", ".join(engine.file.parent.name for engine in engines.values())
        asked = {name: sent(engine) for name, engine in engines.items()}, dict(inputs), protocol.timing
        self.told.append(f"time {names}{' once' if protocol.once else ''}")
        with OtherProcess() as fresh:
            return Timing(fresh.call("time_in_turns", *asked), turn_count(protocol.timing))

    def operators(self, points: Sequence[OperatorPoint], target: Target) -> Iterator[MeasuredOperator]:
        self.told.append(f"time {len(points)} operators")
        for point in points:
            yield self._other.call("time_operator", point, target)

    def kernels(self, engine: EngineFile, inputs: np.ndarray) -> tuple[KernelShare, ...]:
        self.told.append(f"profile {engine.file.parent.name}")
        return (KernelShare(op="whole engine", precision="float", count=1, share=1.0),)

    def kernel_times(self, engines: Mapping[str, EngineFile], inputs: Mapping[str, np.ndarray]) -> dict[str, tuple[KernelTime, ...]]:
        raise AssertionError("the toy device has no profiler of kernels")

    def dissect(self, engine: EngineFile, inputs: np.ndarray) -> EngineParts:
        raise AssertionError(f"{engine.target.runs_on} does not dissect")


def describe(target: Target) -> DeviceInfo:
    system = f"{platform.system()} {platform.machine()}"
    facts = {"isa": target.device.isa, "cores": 1, "system": system, "runtime": target.runs_on, "runtime_version": ort.__version__, "present": True}
    return DeviceInfo.model_validate({"device": "a toy", **facts})


def build(graph: bytes, image_shape: tuple[int, ...]) -> bytes:
    engine = zlib.compress(graph)
    run(Sent(ENGINE, engine, 1), [np.zeros((1, *image_shape), np.float32)])
    return engine


def run(engine: Sent, batches: list[np.ndarray]) -> list[np.ndarray]:
    session = opened(engine)
    return [np.asarray(session.run(None, {INPUT: batch})[0]) for batch in batches]


def time_in_turns(engines: dict[str, Sent], inputs: dict[str, np.ndarray], timing: TimingConfig) -> dict[str, np.ndarray]:
    sessions = {name: opened(engine) for name, engine in engines.items()}
    samples: dict[str, list[np.ndarray]] = {name: [] for name in engines}
    for name, session in sessions.items():
        clock(session, {INPUT: inputs[name]}, timing.warmup_runs)
    for turn in range(turn_count(timing)):
        for name, session in sessions.items():
            samples[name].append(clock(session, {INPUT: inputs[name]}, min(timing.block, timing.runs - turn * timing.block)))
    return {name: np.concatenate(turns, axis=1) for name, turns in samples.items()}


def time_operator(point: OperatorPoint, target: Target) -> MeasuredOperator:
    operator, ci, co = point
    model, feeds = single_operator_graph(operator, ci, co, batch=target.batch, precision=target.precision)
    session = opened(Sent(operator.op, zlib.compress(model.SerializeToString()), target.threads))
    cpu, wall = clock(session, feeds, OPERATOR_RUNS)
    p10, p50 = np.percentile(cpu / 1e3, [10, 50])
    entry = Entry(operator=operator, ci=ci, co=co, p10_us=p10, p50_us=p50, reps=OPERATOR_RUNS, kernels="toy")
    return MeasuredOperator(entry=entry, contention=float(wall.sum() / cpu.sum()))


def opened(engine: Sent) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = engine.threads
    options.log_severity_level = 4  # its errors are raised, too
    try:
        return ort.InferenceSession(zlib.decompress(engine.content), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base
        raise BuildError(f"the toy device cannot load {engine.name}: {error}") from error


def clock(session: ort.InferenceSession, feeds: Feeds, runs: int) -> np.ndarray:
    """Return (2, runs) nanoseconds: thread CPU time and wall time."""
    found = np.empty((2, runs), dtype=np.int64)
    for number in range(runs):
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        session.run(None, dict(feeds))
        found[:, number] = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
    return found


def serve() -> None:
    verbs = {verb.__name__: verb for verb in (describe, build, run, time_in_turns, time_operator)}
    while True:
        try:
            verb, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer: object
        try:
            answer = verbs[verb](*arguments)
        except BonsaiError as error:
            answer = error
        assert "torch" not in sys.modules
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    import toy_device  # the name under which `Sent` comes

    toy_device.serve()
