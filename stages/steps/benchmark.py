"""Stage `benchmark`: engines timed in turns with a reference."""

import math
from pathlib import Path

from bonsai.profiles.schema import Target
from bonsai.stages.backends.device import TimingProtocol
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.graph.probes import noise_for
from bonsai.stages.measurement.asking import time_on_device
from bonsai.stages.measurement.calm import calm_part
from bonsai.stages.measurement.measurements import Benchmark, Candidate
from bonsai.stages.measurement.samples import SAMPLES, contention, gating_clock, percentile_error, save_samples, summarise
from bonsai.stages.store.store import stage

REFERENCE = "reference"


def figures_of(found: Benchmark) -> str:
    """Return how many were timed, against what, in a few words."""
    return f"{len(found.candidates)} timed against {found.reference.p50:.3f} ms"


@stage(version=5, timed=True, figures=figures_of)
def benchmark(
    out_dir: Path,
    candidates: tuple[Engine, ...],
    reference: Engine,
    target: Target,
    image_shape: tuple[int, ...],
    timing: TimingConfig,
    percentile: int,
    repeat: int,
    limit: float | None = None,
) -> Benchmark:
    """Time candidates against a reference on the device; a single one over the turns in which the machine was calm, as the verdict is.

    Args:
        out_dir: Receives the raw samples.
        candidates: Engines whose latency is asked for.
        reference: Usually the dense FP32 engine.
        target: Batch, threads and runtime.
        image_shape: (channels, height, width) of the candidates. The reference may take larger images.
        timing: The protocol.
        percentile: The budget's: it decides the clock, and is what the errors are of.
        repeat: Number of the repetition: another number times the same engines afresh.
        limit: Largest ratio of a single candidate to the reference for which the exact figure matters: the timing ends as soon as the ratio is certain
            to be above. Only for medians; a tail needs all runs. None for all runs.
    """
    named = {REFERENCE: reference} | {str(place): engine for place, engine in enumerate(candidates)}
    engines = {name: engine.for_target(target) for name, engine in named.items()}
    shapes = dict.fromkeys(engines, image_shape) | {REFERENCE: reference.image_shape}
    clock = gating_clock(target, percentile)
    protocol = TimingProtocol(timing=timing, clock=clock, percentile=percentile, limit=limit if percentile == 50 else None)
    found = time_on_device(target, engines, noise_for(shapes, target.batch), protocol)
    whole = found.samples
    save_samples(out_dir / SAMPLES, whole)
    samples = calm_part(whole, clock, found.turns, REFERENCE) if percentile == 50 and len(candidates) == 1 else whole
    errors = {name: percentile_error(values, clock, percentile) for name, values in samples.items()}
    timed = tuple(
        Candidate(latency=summarise(samples[str(place)], clock), error=math.hypot(errors[str(place)], errors[REFERENCE])) for place in range(len(candidates))
    )
    reference_latency = summarise(samples[REFERENCE], clock)
    return Benchmark(folder=out_dir, reference=reference_latency, candidates=timed, contention=contention(whole), conditions=found.conditions)
