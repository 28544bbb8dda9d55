"""Stage `time_engine`: the finished engine timed again in processes of its own, for the verdict on its budget.

The measurement that let an engine through is the lucky one among those that chose it, so it is never the one that judges it.
"""

from pathlib import Path

from bonsai.profiles.budget import Budget
from bonsai.profiles.schema import Target
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.timing_config import TimingConfig, VerdictConfig
from bonsai.stages.measurement.alone_timing import time_alone
from bonsai.stages.measurement.budget_gates import limit_of, require_told
from bonsai.stages.measurement.fresh_timing import time_afresh
from bonsai.stages.measurement.measurements import FreshTiming
from bonsai.stages.store.store import stage


@stage(version=2, timed=True, figures=FreshTiming.figures)
def time_engine(
    out_dir: Path,
    engine: Engine,
    dense: Engine | None,
    target: Target,
    budget: Budget,
    timing: TimingConfig,
    verdict: VerdictConfig,
    known_ms: float | None,
    repetition: int,
) -> FreshTiming:
    """Time an engine in turns with the dense one, or without it; then run it alone for its start, memory and energy.

    Args:
        out_dir: Receives the raw samples.
        engine: The engine to ship.
        dense: The dense engine at the target's reference precision; None where there is none, which a budget in milliseconds needs not.
        target: Batch, threads and runtime.
        budget: Limits and percentile: processes are added while one is undecided.
        timing: The protocol.
        verdict: How many processes.
        known_ms: The dense engine's latency at the percentile as an earlier timing found it, None where there is none: a machine that is slower now is not
            trusted as much.
        repetition: 1, or one more to time the same engine afresh.

    Raises:
        ConfigError: The device does not tell a figure that the budget limits.
    """
    protocol = timing.model_copy(update={"verdict": verdict})
    fresh = time_afresh(
        out_dir,
        engine.for_target(target),
        dense.for_target(target) if dense is not None else None,
        image_shape=engine.image_shape,
        reference_shape=dense.image_shape if dense is not None else None,
        timing=protocol,
        percentile=budget.percentile,
        relative=budget.latency is not None,
        limit=limit_of(budget, target.reference)[0],
        tail_ms=budget.p99_ms,
        known_ms=known_ms,
    )
    footprint = time_alone(engine.for_target(target), image_shape=engine.image_shape, timing=protocol, budget=budget)
    require_told(budget, footprint, engine.info.device)
    return FreshTiming(folder=out_dir, fresh=fresh, repetition=repetition, footprint=footprint)
