"""Measures latency, in the same way for every runtime.

Engines are timed in one process, in blocks that take turns, so that a drift of the machine affects all of them
equally. `stages/measurement/samples.py` computes latencies from the samples.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np

from bonsai.stages.backends.running import Run
from bonsai.stages.backends.timing_config import LEAST_RUNS, TimingConfig
from bonsai.stages.measurement.samples import percentile_error, turn_count

Enough = Callable[[int, Mapping[str, np.ndarray]], bool]
"""Called after every turn with the number of turns so far and their samples; returns whether the timing may end."""


def time_interleaved(engines: Mapping[str, Run], images: Mapping[str, np.ndarray], config: TimingConfig, enough: Enough | None = None) -> dict[str, np.ndarray]:
    """Time engines in turns.

    Args:
        engines: Engines by name.
        images: One batch for each engine, (batch, c, h, w) float32.
        config: The protocol.
        enough: May end the timing early; None for all turns.

    Returns:
        By engine, (2, runs) int64 nanoseconds: thread CPU time and wall time.
    """
    runs = {name: _warm_up(run, images[name], config) for name, run in engines.items()}
    turns = turn_count(config)
    samples = {name: np.empty((2, count), dtype=np.int64) for name, count in runs.items()}
    for turn in range(turns):
        for name, run in engines.items():
            batch = images[name]
            for index in range(turn * runs[name] // turns, (turn + 1) * runs[name] // turns):
                wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
                run(batch)
                samples[name][:, index] = time.thread_time_ns() - cpu, time.perf_counter_ns() - wall
        done = {name: values[:, : (turn + 1) * runs[name] // turns] for name, values in samples.items()}
        if enough is not None and enough(turn + 1, done):
            return done
    return samples


def time_steadily(
    engines: Mapping[str, Run], images: Mapping[str, np.ndarray], config: TimingConfig, clock: str, percentile: int = 50, enough: Enough | None = None
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
