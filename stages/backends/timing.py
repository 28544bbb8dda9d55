"""Measures latency, in the same way for every runtime.

Engines are timed in one process, in blocks that take turns, so that a drift of the machine affects all of them
equally. No sample is dropped. Wall time and the CPU time of the calling thread are both kept. On a shared machine
wall time also contains the work of other programs, so the median of a single-threaded engine is judged by CPU time.
Percentiles above the median are wall time: a slow run is mostly waiting, which the CPU clock does not count.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from bonsai.profiles.schema import Target
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.timing_config import LEAST_RUNS, TimingConfig
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.store.tensor_files import written_plainly

CLOCKS = ("thread_cpu", "wall")
SAMPLES = "samples.safetensors"
PARTS = 20
"""The runs are split into this many consecutive parts; the spread of the parts' percentiles gives the standard error."""

Enough = Callable[[int, Mapping[str, np.ndarray]], bool]
"""Called after every turn with the number of turns so far and their samples; returns whether the timing may end."""


def time_interleaved(engines: Mapping[str, Run], images: np.ndarray, config: TimingConfig, enough: Enough | None = None) -> dict[str, np.ndarray]:
    """Time engines in turns.

    Args:
        engines: Engines by name.
        images: One batch, (batch, c, h, w) float32.
        config: The protocol.
        enough: May end the timing early; None for all turns.

    Returns:
        By engine, (2, runs) int64 nanoseconds: thread CPU time and wall time.
    """
    runs = {name: _warm_up(run, images, config) for name, run in engines.items()}
    turns = turn_count(config)
    samples = {name: np.empty((2, count), dtype=np.int64) for name, count in runs.items()}
    for turn in range(turns):
        for name, run in engines.items():
            for index in range(turn * runs[name] // turns, (turn + 1) * runs[name] // turns):
                wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
                run(images)
                samples[name][:, index] = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        done = {name: values[:, : (turn + 1) * runs[name] // turns] for name, values in samples.items()}
        if enough is not None and enough(turn + 1, done):
            return done
    return samples


def turn_count(config: TimingConfig) -> int:
    """Return how many turns each engine gets."""
    return -(-config.runs // config.block)


def time_steadily(
    engines: Mapping[str, Run], images: np.ndarray, config: TimingConfig, clock: str, percentile: int = 50, enough: Enough | None = None
) -> dict[str, np.ndarray]:
    """Time engines in turns, and again if other programs disturbed them; return the steadiest round.

    A round is steady if the relative standard error of the engines' percentiles is `config.steady` or less on average. A round that
    `enough` ends is returned as it is.
    """
    ended: list[int] = []

    def ends(turn: int, samples: Mapping[str, np.ndarray]) -> bool:
        if enough is not None and enough(turn, samples):
            ended.append(turn)
        return bool(ended)

    rounds: list[tuple[float, dict[str, np.ndarray]]] = []
    while not rounds or (rounds[-1][0] > config.steady and len(rounds) < config.tries):
        samples = time_interleaved(engines, images, config, ends)
        if ended:
            return samples
        rounds.append((float(np.mean([percentile_error(values, clock, percentile) for values in samples.values()])), samples))
    return min(rounds, key=lambda pair: pair[0])[1]


def _warm_up(run: Run, images: np.ndarray, config: TimingConfig) -> int:
    """Run an engine until it is warm; return how many runs to time."""
    started, done, slow = time.monotonic(), 0, False
    while not slow and (done < config.warmup_runs or time.monotonic() - started < config.warmup_seconds):
        run(images)
        done += 1
        slow = done >= 3 and time.monotonic() - started > max(config.seconds / 4, config.warmup_seconds)
    each = (time.monotonic() - started) / done
    return max(min(config.runs, round(config.seconds / each)), min(config.runs, LEAST_RUNS))


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
        save_file(dict(samples), file)
