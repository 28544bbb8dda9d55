"""Runs an engine alone in new processes, for its start, its memory and its energy."""

from collections.abc import Sequence

import numpy as np

from bonsai.profiles.budget import Budget
from bonsai.stages.backends.device import TimingProtocol
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.backends.timing_records import Alone, Energy
from bonsai.stages.graph.probes import noise_images
from bonsai.stages.measurement.asking import time_on_device
from bonsai.stages.measurement.budget_gates import verdict_within
from bonsai.stages.measurement.footprint import Footprint
from bonsai.stages.measurement.interval_record import Interval
from bonsai.stages.measurement.process_interval import interval_between, looks_of
from bonsai.stages.training.progress import report

FEW = TimingConfig(runs=20, seconds=1, block=20, warmup_runs=1, warmup_seconds=0)
"""An engine that is alone is not judged by its times: memory is at its peak after a few runs."""
LEAST_BYTES = 4096
"""An engine counts as at least one page: less cannot be told."""


def time_alone(engine: EngineFile, *, image_shape: tuple[int, ...], timing: TimingConfig, budget: Budget | None) -> Footprint | None:
    """Return an engine's start, memory and energy; the caller holds the machine's timing lock.

    Args:
        engine: The engine.
        image_shape: (channels, height, width).
        timing: Says how many processes decide a limit.
        budget: Where it limits memory or energy, the engine is run in as many processes as decide that, else in one. None for one.

    Returns:
        None where the device tells nothing of an engine that is alone.

    Raises:
        TimingFailed: A process crashed, was ended, or could not open the engine.
    """
    protocol = TimingProtocol(timing=FEW, clock="wall", percentile=50, once=True)
    limits = (None, None) if budget is None else (budget.memory_mb, budget.energy_mj)
    looks = looks_of(timing.verdict.processes, timing.verdict.most) if any(limits) else (1,)
    engine = engine.model_copy(update={"file": engine.file.resolve()})
    found, batch = list[Alone](), noise_images(image_shape, engine.target.batch)
    for look in looks:
        while len(found) < look:
            alone = time_on_device(engine.target, {"engine": engine}, {"engine": batch}, protocol).alone
            if alone is None:
                return None
            found.append(alone)
            report("running the engine alone", done=len(found), total=look, unit="process")
        footprint = footprint_of(found, looks=len(looks))
        judged = zip((footprint.memory, footprint.energy), limits, strict=True)
        if all(interval is None or limit is None or verdict_within(interval.low, interval.high, limit) != "undecided" for interval, limit in judged):
            break
    return footprint


def footprint_of(found: Sequence[Alone], *, looks: int) -> Footprint:
    """Return the figures over several processes.

    Args:
        found: The figures of each.
        looks: Intervals of a sequence that may be looked at, this one included.
    """
    added = [max(alone.engine_bytes, LEAST_BYTES) / 1e6 for alone in found if alone.engine_bytes is not None]
    energies = [alone.energy for alone in found if isinstance(alone.energy, Energy)]
    untold = next((alone.energy.reason for alone in found if not isinstance(alone.energy, Energy)), "")
    spent = [energy.millijoules for energy in energies] if not untold else []
    return Footprint(
        processes=len(found),
        **{name: float(np.median([getattr(alone, name) for alone in found])) for name in ("start_s", "load_s", "first_s", "warm_s")},
        before_mb=_median([alone.before_bytes / 1e6 for alone in found if alone.before_bytes is not None]),
        peak_mb=_median([alone.peak_bytes / 1e6 for alone in found if alone.peak_bytes is not None]),
        memory_mb=_median(added),
        memory=_interval(added, looks),
        energy_mj=_median(spent),
        energy=_interval(spent, looks),
        meter=untold or energies[0].meter,
    )


def _median(figures: Sequence[float]) -> float | None:
    return float(np.median(figures)) if figures else None


def _interval(figures: Sequence[float], looks: int) -> Interval | None:
    return interval_between(figures, [0.0] * len(figures), looks=looks) if len(figures) > 1 else None
