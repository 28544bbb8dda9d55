"""Times engines in a process of its own: it gets a `Request` as one line of JSON on stdin, and images and samples pass through unnamed files.

The same engines differ by 1 to 3 % between processes, so a verdict needs several. In a process that has opened many engines before, they differ by up to
5 %, since its memory is in pieces. Of Bonsai only the engines' own backend is imported there.
The process ends at once where its parent does.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
from safetensors.numpy import load, save

from bonsai.profiles.errors import BonsaiError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.stages.backends.device import Timing, TimingProtocol
from bonsai.stages.backends.early_end import EarlyEnd
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.timing import time_interleaved, time_steadily
from bonsai.stages.errors import TimingFailed
from bonsai.stages.interpreter import run_module
from bonsai.stages.measurement.samples import turn_count
from bonsai.stages.store.tensor_files import in_rows

CHILD = "bonsai.stages.backends.process_timing"
TURNS = ".turns"
"""Name of the number of turns among the samples."""
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
    """

    engines: dict[str, EngineFile]
    protocol: TimingProtocol
    images: int
    batches: dict[str, str]
    samples: int


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
        request = Request(engines=dict(engines), protocol=protocol, images=given.fileno(), batches=batches, samples=found.fileno())
        _ask(request, inherited)
        found.seek(0)
        samples = dict(load(found.read()))
        return Timing(turns=int(samples.pop(TURNS)[0]), samples=samples)


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
    try:
        engines = {name: backend_of(engine.target).open_engine(engine.file, engine.target) for name, engine in request.engines.items()}
    except BonsaiError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        os._exit(REFUSED)
    with os.fdopen(request.images, "rb") as given, os.fdopen(request.samples, "wb") as found:
        given.seek(0)
        batches = dict(np.load(given))
        timing = _time(engines, {name: batches[batch] for name, batch in request.batches.items()}, request.protocol)
        found.write(save(in_rows({**timing.samples, TURNS: np.array([timing.turns])})))
    sys.stderr.flush()
    os._exit(0)  # the thread above still reads; a runtime's own end is not what is timed


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
