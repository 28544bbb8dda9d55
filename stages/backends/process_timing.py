"""Times engines in a process of its own: a `Request` as one line of JSON on stdin, the samples as a safetensors file.

The same engines differ by 1 to 3 % between processes, so a verdict needs several. Of Bonsai only the engines' own backend is imported there.
The process ends at once where its parent does.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from bonsai.profiles.errors import BonsaiError, describe
from bonsai.profiles.schema import Target
from bonsai.profiles.source import Record
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.backends.timing import save_samples, time_interleaved
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.errors import TimingFailed
from bonsai.stages.interpreter import run_module

CHILD = "bonsai.stages.backends.process_timing"
REFUSED = 3
"""Exit code of the process if Bonsai refuses to open an engine. The last line of stderr says why."""


class Timed(Record):
    """An engine that is timed.

    Attributes:
        file: File of the engine.
        target: Batch, threads and runtime.
    """

    file: Path
    target: Target


class Request(Record):
    """What to time.

    Attributes:
        engines: Engines by name, all for the same batch size; they take turns.
        image_shape: (channels, height, width).
        timing: The protocol of this process.
        samples: File that receives the raw nanoseconds.
    """

    engines: dict[str, Timed]
    image_shape: tuple[int, int, int]
    timing: TimingConfig
    samples: Path


def time_in_process(request: Request, inherited: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Time engines in a fresh process and return their samples, as `time_interleaved` does.

    Args:
        request: The engines, and how to time them.
        inherited: Descriptors that the process is given, such as that of the timing lock.

    Raises:
        TimingFailed: The process refused, crashed, or was ended.
    """
    process = subprocess.Popen(
        run_module(CHILD),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # the same code as here
        pass_fds=inherited,
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
    return dict(load_file(request.samples))


def main() -> None:
    """Answer one request."""
    request = Request.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        engines = {name: backend_of(engine.target).open_engine(engine.file, engine.target) for name, engine in request.engines.items()}
    except BonsaiError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        os._exit(REFUSED)
    (batch,) = {engine.target.batch for engine in request.engines.values()}
    images = np.random.default_rng(0).standard_normal((batch, *request.image_shape)).astype(np.float32)
    save_samples(request.samples, time_interleaved(engines, images, request.timing))
    sys.stderr.flush()
    os._exit(0)  # the thread above still reads; a runtime's own end is not what is timed


def _end_with_parent() -> None:
    sys.stdin.read()  # returns when the other end closes, however the parent ends
    os._exit(1)


if __name__ == "__main__":
    main()
