"""Times engines in a process of its own: it gets a `Request` as one line of JSON on stdin, and images and samples pass through unnamed files.

The same engines differ by 1 to 3 % between processes, so a verdict needs several. In a process that has opened many engines before, they differ by up to
5 %, since its memory is in pieces. Of Bonsai only the engines' own backend is imported there.
An engine that has a process to itself also tells its start, its memory and its energy.
The process ends at once where its parent does.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import numpy as np
from safetensors.numpy import load, save

from bonsai.profiles.errors import BonsaiError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.stages.backends.alone import figures_of, open_alone
from bonsai.stages.backends.device import Timing, TimingProtocol
from bonsai.stages.backends.early_end import EarlyEnd
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.timing import time_interleaved, time_steadily
from bonsai.stages.backends.timing_records import Alone
from bonsai.stages.errors import TimingFailed
from bonsai.stages.interpreter import run_module
from bonsai.stages.measurement.samples import turn_count
from bonsai.stages.store.tensor_files import in_rows

CHILD = "bonsai.stages.backends.process_timing"
TURNS = ".turns"
"""Name of the number of turns among the samples."""
ALONE = ".alone"
"""Name of the figures of a single engine among the samples: JSON in UTF-8, a byte each."""
REFUSED = 3
"""Exit code of the process if Bonsai refuses to open an engine. The last line of stderr says why."""


class Request(Record):
    """What to time.

    Attributes:
        engines: Engines by name, all for the same batch size; they take turns.
        protocol: The protocol of this process.
        images: Descriptor of a file with batches by name, as NumPy writes them.
        batches: By engine, the name of its batch.
        samples: Descriptor of the file that receives the raw nanoseconds, safetensors.
        started: When the process was started, by the monotonic clock, which all processes of a machine share.
    """

    engines: dict[str, EngineFile]
    protocol: TimingProtocol
    images: int
    batches: dict[str, str]
    samples: int
    started: float


def time_in_process(engines: Mapping[str, EngineFile], images: Mapping[str, np.ndarray], protocol: TimingProtocol, inherited: tuple[int, ...] = ()) -> Timing:
    """Time engines in a fresh process and return their samples.

    Args:
        engines: Engines by name, all for the same batch size.
        images: One batch for each engine, (batch, c, h, w) float32. Engines may share one.
        protocol: Runs, clock, and the rule that ends the timing.
        inherited: Descriptors that the process is given, such as that of the timing lock.

    Raises:
        TimingFailed: The process refused, crashed, or was ended.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as found:
        different = {id(batch): batch for batch in images.values()}  # each once, however many engines take it
        np.savez(given, *different.values())
        given.flush()
        called = {one: f"arr_{place}" for place, one in enumerate(different)}  # as NumPy calls them
        batches = {name: called[id(batch)] for name, batch in images.items()}
        files = {"images": given.fileno(), "samples": found.fileno()}
        request = Request(engines=dict(engines), protocol=protocol, batches=batches, started=time.monotonic(), **files)
        _ask(request, inherited)
        found.seek(0)
        samples = dict(load(found.read()))
        turns, alone = int(samples.pop(TURNS)[0]), samples.pop(ALONE, None)
        return Timing(samples, turns, alone=None if alone is None else Alone.model_validate_json(alone.tobytes()))


def _ask(request: Request, inherited: tuple[int, ...]) -> None:
    process = subprocess.Popen(
        run_module(CHILD),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # the same code as here
        pass_fds=(request.images, request.samples, *inherited),
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdin is not None and process.stderr is not None
    try:
        with suppress(BrokenPipeError):  # its last words say why
            process.stdin.write(request.model_dump_json() + "\n")
            process.stdin.flush()  # and stays open: its end tells the process that this one is gone
        said = process.stderr.read().strip().splitlines()
        code = process.wait()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        with suppress(BrokenPipeError):  # what could not be written
            process.stdin.close()
    if code != 0:
        ending = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        raise TimingFailed(
            describe(
                f"{', '.join(dict.fromkeys(engine.file.name for engine in request.engines.values()))}: cannot be timed, its process {ending}",
                given=said[-1] if said else "it left no message",
                allowed="an engine that runs on this machine",
                fix="free memory and the device, and run the same command again; `bonsai verify` says whether the engine runs here",
            )
        )


def main() -> None:
    """Answer one request."""
    request = Request.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    backends = {name: backend_of(engine.target) for name, engine in request.engines.items()}
    start_s = time.monotonic() - request.started
    with os.fdopen(request.images, "rb") as given, os.fdopen(request.samples, "wb") as found:
        given.seek(0)
        batches = dict(np.load(given))
        images = {name: batches[batch] for name, batch in request.batches.items()}
        loads = {name: partial(backends[name].open_engine, engine.file, engine.target) for name, engine in request.engines.items()}
        try:
            timing = _time_alone(request, loads, images, start_s) if len(loads) == 1 else _time(_load_all(loads), images, request.protocol)
        except BonsaiError as error:
            print(" ".join(str(error).split()), file=sys.stderr)
            os._exit(REFUSED)
        alone = {} if timing.alone is None else {ALONE: np.frombuffer(timing.alone.model_dump_json().encode(), np.uint8)}
        found.write(save(in_rows({**timing.samples, TURNS: np.array([timing.turns]), **alone})))
    sys.stderr.flush()
    os._exit(0)  # the thread above still reads; a runtime's own end is not what is timed


def _load_all(loads: Mapping[str, Callable[[], Run]]) -> dict[str, Run]:
    return {name: load() for name, load in loads.items()}


def _time_alone(request: Request, loads: Mapping[str, Callable[[], Run]], images: Mapping[str, np.ndarray], start_s: float) -> Timing:
    """Time the only engine of this process, and tell its start, memory and energy."""
    ((name, load),) = loads.items()
    opened = open_alone(load, images[name])
    timing = _time({name: opened.run}, images, request.protocol)
    kind = request.engines[name].target.device.kind
    return timing._replace(alone=figures_of(opened, load, images[name], start_s=start_s, kind=kind))


def _time(engines: Mapping[str, Run], images: Mapping[str, np.ndarray], protocol: TimingProtocol) -> Timing:
    turns = turn_count(protocol.timing)
    if protocol.once:
        return Timing(time_interleaved(engines, images, protocol.timing), turns)
    early = None
    if protocol.limit is not None:
        reference, candidate = engines
        early = EarlyEnd(protocol.limit, protocol.clock, candidate=candidate, reference=reference)
    samples = time_steadily(engines, images, protocol.timing, protocol.clock, protocol.percentile, early)
    return Timing(samples, early.turns if early is not None and early.turns else turns)


def _end_with_parent() -> None:
    sys.stdin.read()  # returns when the other end closes, however the parent ends
    os._exit(1)


if __name__ == "__main__":
    main()
