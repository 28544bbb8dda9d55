"""Stage `benchmark`: engines timed in turns with a reference."""

import math
from pathlib import Path

import numpy as np

from bonsai.profiles.schema import Target
from bonsai.stages.backends.calm import calm_part
from bonsai.stages.backends.early_end import EarlyEnd
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.backends.timing import SAMPLES, contention, gating_clock, percentile_error, save_samples, summarise, time_steadily, turn_count
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.measurement.measurements import Benchmark, Candidate
from bonsai.stages.store.store import stage

REFERENCE = "reference"


@stage(version=5, timed=True)
def benchmark(
    out_dir: Path,
    candidates: tuple[Engine, ...],
    reference: Engine,
    target: Target,
    image_shape: tuple[int, int, int],
    timing: TimingConfig,
    percentile: int,
    repeat: int,
    bounds: tuple[float, float] | None = None,
) -> Benchmark:
    """Time candidates against a reference on the device; a single one over the turns in which the machine was calm, as the verdict is.

    Args:
        out_dir: Receives the raw samples.
        candidates: Engines whose latency is asked for.
        reference: Usually the dense FP32 engine.
        target: Batch, threads and runtime.
        image_shape: (channels, height, width).
        timing: The protocol.
        percentile: The budget's: it decides the clock, and is what the errors are of.
        repeat: Number of the repetition: another number times the same engines afresh.
        bounds: Least and largest ratio of a single candidate to the reference for which the exact figure matters: the timing ends as soon as the
            ratio is certain to lie outside. Only for medians; a tail needs all runs. None for all runs.
    """
    backend = backend_of(target)
    named = {REFERENCE: reference} | {str(place): engine for place, engine in enumerate(candidates)}
    engines = {name: backend.open_engine(engine.folder / engine.file, target) for name, engine in named.items()}
    images = np.random.default_rng(0).standard_normal((target.batch, *image_shape)).astype(np.float32)
    clock = gating_clock(target, percentile)
    early = EarlyEnd(bounds, clock, candidate="0", reference=REFERENCE) if bounds is not None and percentile == 50 else None
    whole = time_steadily(engines, images, timing, clock, percentile, early)
    save_samples(out_dir / SAMPLES, whole)
    turns = early.turns if early is not None and early.turns else turn_count(timing)
    samples = calm_part(whole, clock, turns, REFERENCE) if percentile == 50 and len(candidates) == 1 else whole
    errors = {name: percentile_error(values, clock, percentile) for name, values in samples.items()}
    timed = tuple(
        Candidate(latency=summarise(samples[str(place)], clock), error=math.hypot(errors[str(place)], errors[REFERENCE])) for place in range(len(candidates))
    )
    return Benchmark(folder=out_dir, reference=summarise(samples[REFERENCE], clock), candidates=timed, contention=contention(whole))
