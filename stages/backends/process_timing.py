"""Times engines in a process of its own: it gets a `Request` as one line of JSON on stdin, and images and samples pass through unnamed files.

The same engines differ by 1 to 3 % between processes, so a verdict needs several. Of Bonsai only the engines' own backend is imported there.
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
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.backends.timing import time_interleaved
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.errors import TimingFailed
from bonsai.stages.interpreter import run_module

CHILD = "bonsai.stages.backends.process_timing"
REFUSED = 3
"""Exit code of the process if Bonsai refuses to open an engine. The last line of stderr says why."""


class Request(Record):
    """What to time.

    Attributes:
        engines: Engines by name, all for the same batch size; they take turns.
        timing: The protocol of this process.
        images: Descriptor of a file with one batch, as NumPy writes it.
        samples: Descriptor of the file that receives the raw nanoseconds, safetensors.
    """

    engines: dict[str, EngineFile]
    timing: TimingConfig
    images: int
    samples: int


def time_in_process(engines: Mapping[str, EngineFile], images: np.ndarray, timing: TimingConfig, inherited: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Time engines in a fresh process and return their samples, as `time_interleaved` does.

    Args:
        engines: Engines by name, all for the same batch size.
        images: One batch, (batch, c, h, w) float32.
        timing: The protocol.
        inherited: Descriptors that the process is given, such as that of the timing lock.

    Raises:
        TimingFailed: The process refused, crashed, or was ended.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as found:
        np.save(given, images)
        given.flush()
        request = Request(engines=dict(engines), timing=timing, images=given.fileno(), samples=found.fileno())
        _ask(request, inherited)
        found.seek(0)
        return dict(load(found.read()))


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
        found.write(save(time_interleaved(engines, np.load(given), request.timing)))
    sys.stderr.flush()
    os._exit(0)  # the thread above still reads; a runtime's own end is not what is timed


def _end_with_parent() -> None:
    sys.stdin.read()  # returns when the other end closes, however the parent ends
    os._exit(1)


if __name__ == "__main__":
    main()
