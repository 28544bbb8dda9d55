"""Stage `challenge`: the engine that ships beside an earlier package's, on the same test images and, where both run here, timed in turns."""

from pathlib import Path

from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.delivery.release import Release
from bonsai.stages.measurement.budget_gates import verdict_within
from bonsai.stages.measurement.fresh_timing import time_afresh
from bonsai.stages.measurement.interval_record import Interval
from bonsai.stages.measurement.judging import accuracy_of, observe
from bonsai.stages.measurement.measurements import Against, Challenge, Fresh, Gate, Measurement
from bonsai.stages.measurement.results import RESULTS, read_results
from bonsai.stages.store.store import stage
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.registry import task_named


def figures_of(found: Challenge) -> str:
    """Return what was found against which package, in a few words."""
    return f"against {found.against.name}, drop {found.against.drop[0]:+.4f}"


@stage(version=2, timed=True, figures=figures_of)
def challenge(
    out_dir: Path, measurement: Measurement, engine: Engine, dataset: Dataset, profile: HardwareProfile, timing: TimingConfig, release: Release
) -> Challenge:
    """Compare accuracy image by image and latency in several processes, and judge both by the profile's limits.

    Args:
        out_dir: Receives the raw samples of the timing.
        measurement: Measurement of the engine, with its results on the test images.
        engine: The one that ships.
        dataset: Source of the test part.
        profile: The limits `against`.
        timing: The protocol.
        release: The earlier package, which `require_comparable` let pass.
    """
    task = task_named(dataset.task)
    part = Part(dataset, "test")
    seen, by = release.stored_results(measurement.test_digest, task), "as its package tells"
    if seen is None:
        seen, by = observe(device_of(release.engine.target).run(release.engine, part.one_by_one()), part.targets, task), "run here"
    drop = task.interval(seen, read_results(measurement.folder / RESULTS, task).shipped)
    not_timed = _why_not_timed(engine, profile, release)
    fresh = None if not_timed else _time(engine, profile, timing, release, out_dir)
    against = Against(
        name=release.name,
        engine_sha256=release.engine_sha256,
        accuracy=accuracy_of(seen, task, f"the earlier engine, {by}", "test"),
        drop=drop,
        new=fresh.engine if fresh else None,
        earlier=fresh.reference if fresh else None,
        not_timed=not_timed,
    )
    return Challenge(folder=out_dir, against=against, gates=judge_against(against, fresh.interval if fresh else None, profile, task.metric))


def judge_against(against: Against, interval: Interval | None, profile: HardwareProfile, metric: Metric) -> tuple[Gate, ...]:
    """Return the gates against a release: met or missed where the whole interval lies on one side of the limit, else undecided.

    Args:
        against: Result of the comparison.
        interval: The latency of the new engine over the earlier one's; None where they were not timed.
        profile: The limits.
        metric: Metric of the accuracies.
    """
    limits, (drop, low, high) = profile.against, against.drop
    note = f"{drop:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, on {against.accuracy.n} test images"
    verdict = verdict_within(low, high, limits.max_drop)
    unit = f"{metric.label} (upper end of the 95 % interval)"
    gates = [Gate(name=f"drop against {against.name}", limit=limits.max_drop, found=high, unit=unit, verdict=verdict, note=note)]
    if interval is not None:
        slower, least, most = (value - 1 for value in (interval.found, interval.low, interval.high))
        note = (
            f"{slower:+.1%}, 95 % interval {least:+.1%} to {most:+.1%} from {interval.processes} processes, p{profile.budget.percentile} of both timed in turns"
        )
        verdict = verdict_within(least, most, limits.max_slowdown)
        name, unit = f"slowdown against {against.name}", "of its latency (upper end of the 95 % interval)"
        gates.append(Gate(name=name, limit=limits.max_slowdown, found=most, unit=unit, verdict=verdict, note=note))
    return tuple(gates)


def _why_not_timed(engine: Engine, profile: HardwareProfile, release: Release) -> str:
    """Return why the two engines cannot be timed in turns here; an empty text where they can."""
    earlier = release.manifest
    if not engine.runnable:
        return f"the new engine does not run here: no {profile.target.device.name}"
    if release.absence:
        return f"the earlier engine does not run here: {release.absence}"
    if earlier.engine.image_shape != engine.image_shape or earlier.profile.target.batch != profile.target.batch:
        shapes = (
            f"{batch} x {'x'.join(map(str, shape))}"
            for batch, shape in ((earlier.profile.target.batch, earlier.engine.image_shape), (profile.target.batch, engine.image_shape))
        )
        return f"an inference of the earlier engine is of {next(shapes)}, one of the new engine of {next(shapes)}"
    return ""


def _time(engine: Engine, profile: HardwareProfile, timing: TimingConfig, release: Release, folder: Path) -> Fresh:
    return time_afresh(
        folder,
        engine.for_target(profile.target.at(engine.precision)),
        release.engine,
        image_shape=engine.image_shape,
        timing=timing,
        percentile=profile.budget.percentile,
        relative=True,
        limit=1 + profile.against.max_slowdown,
        what=f"timing beside {release.name}",
    )
