"""Stage `race`: engines timed in turns with a reference."""

import math
from pathlib import Path

import numpy as np

from profiles.schema import Target
from stages.artifacts import Engine
from stages.backends.registry import backend_of
from stages.backends.timing import SAMPLES, TimingConfig, contention, gating_clock, median_error, save_samples, summarise, time_steadily
from stages.measurements import Lane, Race
from stages.store import stage

REFERENCE = "reference"


@stage(version=3, timed=True)
def race(
    out_dir: Path, candidates: tuple[Engine, ...], reference: Engine, target: Target, image_shape: tuple[int, int, int], timing: TimingConfig, heat: int
) -> Race:
    """Time candidates against a reference on the device.

    Args:
        out_dir: Receives the raw samples.
        candidates: Engines whose latency is asked for.
        reference: Usually the dense FP32 engine.
        target: Batch, threads and runtime.
        image_shape: (channels, height, width).
        timing: The protocol.
        heat: Number of the repetition: the same engines are timed afresh in another heat.
    """
    backend = backend_of(target)
    named = {REFERENCE: reference} | {str(place): engine for place, engine in enumerate(candidates)}
    engines = {name: backend.open_engine(engine.folder / engine.file, target) for name, engine in named.items()}
    images = np.random.default_rng(0).standard_normal((target.batch, *image_shape)).astype(np.float32)
    clock = gating_clock(target)
    samples = time_steadily(engines, images, timing, clock)
    save_samples(out_dir / SAMPLES, samples)
    errors = {name: median_error(values, clock) for name, values in samples.items()}
    lanes = tuple(
        Lane(latency=summarise(samples[str(place)], clock), error=math.hypot(errors[str(place)], errors[REFERENCE])) for place in range(len(candidates))
    )
    return Race(folder=out_dir, reference=summarise(samples[REFERENCE], clock), lanes=lanes, contention=contention(samples))
