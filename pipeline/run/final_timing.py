"""The finished engine timed again for the verdict on its latency, and again when the user asks for it."""

from typing import Any

from bonsai.pipeline.run.targets import ReadyTarget
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import FreshTiming, Measurement
from bonsai.stages.steps.time_engine import time_engine
from bonsai.stages.store.store import Step, Store


def time_finished(
    timing: TimingConfig, target: ReadyTarget, engine: Engine, reference: Engine, measurement: Measurement, step: Step, *, remeasure: bool
) -> FreshTiming | None:
    """Return the newest timing of an engine that was made after it was chosen, or make the first.

    Args:
        timing: The protocol.
        target: Target with the budget.
        engine: The engine to ship.
        reference: The dense engine.
        measurement: That chose the engine: how fast the machine ran the dense one then is compared with how fast it runs it now.
        step: Runs the stage.
        remeasure: Whether to make a new one in any case.

    Returns:
        None where the device is not here: an estimate cannot be timed again.
    """
    if not target.info.present:
        return None
    return _time(timing, target.profile, engine, reference, measurement.rows[0].latency, step, remeasure=remeasure)


def time_points(
    timing: TimingConfig, target: ReadyTarget, engine: Engine, reference: Engine, measurement: Measurement, step: Step, *, remeasure: bool
) -> tuple[FreshTiming, ...]:
    """Return the same at each of the profile's points, in their order; arguments as for `time_finished`."""
    known = {at.point: at.dense for at in measurement.points}
    points = target.profile.at_points().items()
    return tuple(_time(timing, point, engine, reference, known[label], step, remeasure=remeasure) for label, point in points)


def _time(
    timing: TimingConfig, profile: HardwareProfile, engine: Engine, reference: Engine, dense: Latency | None, step: Step, *, remeasure: bool
) -> FreshTiming:
    inputs = {
        "engine": engine,
        "dense": reference,
        "target": profile.target,
        "budget": profile.budget,
        "timing": timing,
        "verdict": timing.verdict,
        "known_ms": dense.at(profile.budget.percentile) if dense is not None else None,
    }
    newest = newest_repetition(Store(engine.folder.parent.parent), inputs)
    return step(time_engine, **inputs, repetition=newest + 1 if remeasure else max(newest, 1))


def newest_repetition(store: Store, inputs: dict[str, Any]) -> int:
    """Return the number of the newest finished timing of these inputs, 0 where there is none: older ones may have been freed."""
    numbers = [0]
    for manifest in store.manifests(time_engine):
        number = manifest.inputs.get("repetition")
        if isinstance(number, int) and store.key(time_engine, {**inputs, "repetition": number}) == manifest.key:
            numbers.append(number)
    return max(numbers)
