"""Stage `race`: two engines timed in turns."""

import math
from pathlib import Path

import numpy as np

from profiles.schema import Target
from stages.artifacts import Engine
from stages.backends.registry import backend_of
from stages.backends.timing import SAMPLES, TimingConfig, contention, gating_clock, median_error, save_samples, summarise, time_interleaved
from stages.measurements import Race
from stages.store import stage


@stage(version=1, timed=True)
def race(out_dir: Path, candidate: Engine, reference: Engine, target: Target, image_shape: tuple[int, int, int], timing: TimingConfig) -> Race:
    """Time a candidate against a reference on the device.

    Args:
        out_dir: Receives the raw samples.
        candidate: Engine whose latency is asked for.
        reference: Usually the dense FP32 engine.
        target: Batch, threads and runtime.
        image_shape: (channels, height, width).
        timing: The protocol.
    """
    backend = backend_of(target)
    engines = {name: backend.open_engine(e.folder / e.file, target) for name, e in (("candidate", candidate), ("reference", reference))}
    images = np.random.default_rng(0).standard_normal((target.batch, *image_shape)).astype(np.float32)
    samples = time_interleaved(engines, images, timing)
    save_samples(out_dir / SAMPLES, samples)
    clock = gating_clock(target)
    latency = {name: summarise(values, clock) for name, values in samples.items()}
    return Race(
        folder=out_dir,
        candidate=latency["candidate"],
        reference=latency["reference"],
        ratio=latency["candidate"].p50 / latency["reference"].p50,
        error=math.hypot(*(median_error(values, clock) for values in samples.values())),
        contention=contention(samples),
    )
