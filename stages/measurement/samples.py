"""Computes latencies from raw nanoseconds, and says which clock judges them.

No sample is dropped. Wall time and the CPU time of the calling thread are both kept. On a shared machine wall time also contains the work of other
programs, so the median of a single-threaded engine is judged by CPU time. Percentiles above the median are wall time: a slow run is mostly waiting,
which the CPU clock does not count.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from bonsai.profiles.schema import Target
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.store.tensor_files import in_rows, written_plainly

CLOCKS = ("thread_cpu", "wall")
SAMPLES = "samples.safetensors"
PARTS = 20
"""The runs are split into this many consecutive parts; the spread of the parts' percentiles gives the standard error."""


def turn_count(config: TimingConfig) -> int:
    """Return how many turns each engine gets."""
    return -(-config.runs // config.block)


def gating_clock(target: Target, percentile: int) -> str:
    """Return the clock that a percentile is judged by.

    A median is judged by the calling thread's CPU time if that thread does all the work. Higher percentiles are wall time on every device.
    """
    return "thread_cpu" if target.device.kind == "cpu" and target.threads == 1 and percentile == 50 else "wall"


def shared_clock(targets: Iterable[Target], percentile: int) -> str:
    """Return the clock to compare engines for several targets by: their common one, or wall time if they differ."""
    clocks = {gating_clock(target, percentile) for target in targets}
    return clocks.pop() if len(clocks) == 1 else "wall"


def summarise(samples: np.ndarray, clock: str) -> Latency:
    """Return median, mean and spread of (2, n) nanoseconds on `clock`, and the percentiles above the median in wall time, all in milliseconds."""
    milliseconds = samples[CLOCKS.index(clock)] / 1e6
    p90, p95, p99 = (float(p) for p in np.percentile(samples[CLOCKS.index("wall")] / 1e6, [90, 95, 99]))
    return Latency(
        source="measured",
        clock=clock,
        p50=float(np.median(milliseconds)),
        p90=p90,
        p95=p95,
        p99=p99 if len(milliseconds) >= 1000 else None,
        mean=float(milliseconds.mean()),
        n=len(milliseconds),
        cv=float(milliseconds.std() / milliseconds.mean()),
        wall_p50=float(np.median(samples[1]) / 1e6),
    )


def percentile_error(samples: np.ndarray, clock: str, percentile: int = 50) -> float:
    """Return the relative standard error of a percentile, computed from `PARTS` consecutive parts."""
    found = percentiles_of_parts(samples, clock, percentile)
    return float(found.std(ddof=1) / np.sqrt(len(found)) / found.mean())


def percentiles_of_parts(samples: np.ndarray, clock: str, percentile: int) -> np.ndarray:
    """Split (2, n) nanoseconds into `PARTS` consecutive parts, and return the percentile of each, in nanoseconds."""
    return np.array([np.percentile(part, percentile) for part in np.array_split(samples[CLOCKS.index(clock)], PARTS)])


def contention(samples: Mapping[str, np.ndarray]) -> float:
    """Return wall time over CPU time of all runs: 1 on a quiet machine."""
    every = np.concatenate(list(samples.values()), axis=1)
    return float(every[1].sum() / every[0].sum())


def save_samples(file: Path, samples: Mapping[str, np.ndarray]) -> None:
    """Write the raw nanoseconds beside the result, as safetensors."""
    with written_plainly(file):
        save_file(in_rows(samples), file)
