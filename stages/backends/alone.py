"""What an engine costs that has a process to itself: its start, its memory, its energy."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from bonsai.stages.backends.energy import measure_energy
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.system_files import SYS, text_in
from bonsai.stages.backends.timing_records import Alone

PROC = Path("/proc/self")
RESET_PEAK = "5"
"""Written to `clear_refs`, it lets the peak start again at what the process has now."""


class Opened(NamedTuple):
    """An engine that was loaded, and what its first output took."""

    run: Run
    load_s: float
    first_s: float
    before_bytes: int | None


def open_alone(load: Callable[[], Run], batch: np.ndarray, *, proc: Path = PROC) -> Opened:
    """Load the only engine of a process, and run it once.

    Args:
        load: Loads it.
        batch: One batch, (batch, c, h, w) float32.
        proc: The process's folder below `/proc`, or one that is laid out alike.
    """
    _forget_peak(proc)
    before, started = _resident(proc, "VmRSS"), time.monotonic()
    run = load()
    loaded = time.monotonic()
    run(batch)
    return Opened(run, loaded - started, time.monotonic() - loaded, before)


def figures_of(
    opened: Opened, load: Callable[[], Run], batch: np.ndarray, *, start_s: float, kind: Literal["cpu", "gpu"], root: Path = SYS, proc: Path = PROC
) -> Alone:
    """Return what the engine cost, after it was timed.

    Args:
        opened: The engine.
        load: Loads it.
        batch: One batch, (batch, c, h, w) float32.
        start_s: Seconds from the start of the process until the runtime was imported.
        kind: Kind of processor that runs it.
        root: The folder `/sys`, or one that is laid out alike.
        proc: The process's folder below `/proc`, or one that is laid out alike.
    """
    energy = measure_energy(lambda: opened.run(batch), root, kind)
    peak = _resident(proc, "VmHWM")  # before the engine is loaded a second time
    started = time.monotonic()
    load()(batch)
    return Alone(
        start_s=start_s,
        load_s=opened.load_s,
        first_s=opened.first_s,
        warm_s=time.monotonic() - started,
        before_bytes=opened.before_bytes,
        peak_bytes=peak,
        energy=energy,
    )


def _forget_peak(proc: Path) -> None:
    """Let the peak start again: importing a runtime may take more for a moment than it keeps."""
    try:
        (proc / "clear_refs").write_text(RESET_PEAK)
    except OSError:  # where that is refused, the import's peak is part of the engine's
        return


def _resident(proc: Path, field: str) -> int | None:
    """Return a line of `/proc/self/status`, such as ``VmHWM: 61440 kB``, in bytes."""
    for line in (text_in(proc / "status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None
