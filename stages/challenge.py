"""Stage `challenge`: the engine that ships beside an earlier package's, on the same test images and, where both run here, in turns."""

import math
from pathlib import Path
from typing import NamedTuple

import torch

from profiles.schema import HardwareProfile
from stages.artifacts import Dataset, Engine, Latency
from stages.backends.registry import backend_of
from stages.backends.timing import CLOCKS, SAMPLES, TimingConfig, gating_clock, percentile_error, save_samples, summarise, time_steadily
from stages.classifying import RESULTS, accuracy_of, classify, read_results
from stages.delivery.release import Release
from stages.intervals import Z, paired_drop
from stages.measurements import Against, Challenge, Gate, Measurement
from stages.store import stage
from stages.training.batches import load_split
from stages.verdicts import verdict_within

NEW, EARLIER = "engine", "earlier"


class Times(NamedTuple):
    """Both engines timed in turns, and the ratio of the new one's latency to the earlier one's, with both ends of its 95 % interval."""

    new: Latency
    earlier: Latency
    ratio: tuple[float, float, float]


@stage(version=1, timed=True)
def challenge(
    out_dir: Path, measurement: Measurement, engine: Engine, dataset: Dataset, profile: HardwareProfile, timing: TimingConfig, release: Release
) -> Challenge:
    """Compare accuracy image by image and latency in turns, and judge both by the profile's limits.

    Args:
        out_dir: Receives the raw samples of the timing.
        measurement: Of the engine, with its results on the test part.
        engine: The one that ships.
        dataset: Source of the test part.
        profile: The limits `against`.
        timing: The protocol.
        release: The earlier package, which `require_comparable` let pass.
    """
    images, labels = load_split(dataset, "test")
    hits, by = release.stored_hits(measurement.test_digest), "as its package tells"
    if hits is None:
        hits, by = classify(release.open_engine(), images) == labels.numpy(), "run here"
    drop = paired_drop(hits, read_results(measurement.folder / RESULTS).shipped_hits)
    not_timed = _why_not_timed(engine, profile, release)
    times = None if not_timed else _time(engine, profile, timing, release, images, out_dir)
    against = Against(
        name=release.name,
        engine_sha256=release.engine_sha256,
        accuracy=accuracy_of(hits, f"the earlier engine, {by}", "test"),
        drop=drop,
        new=times.new if times else None,
        earlier=times.earlier if times else None,
        not_timed=not_timed,
    )
    return Challenge(folder=out_dir, against=against, gates=judge_against(against, times.ratio if times else None, profile))


def judge_against(against: Against, ratio: tuple[float, float, float] | None, profile: HardwareProfile) -> tuple[Gate, ...]:
    """Return the gates against a release: met or missed where the whole interval lies on one side of the limit, else undecided.

    Args:
        against: What was found.
        ratio: Latency of the new engine over the earlier one's, with both ends of its interval; None where they were not timed.
        profile: The limits.
    """
    limits, (drop, low, high) = profile.against, against.drop
    note = f"{drop:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, on {against.accuracy.n} test images"
    verdict = verdict_within(low, high, limits.max_drop)
    gates = [Gate(name=f"drop against {against.name}", limit=limits.max_drop, found=high, unit="top-1 at most (95 %)", verdict=verdict, note=note)]
    if ratio is not None:
        slower, least, most = (value - 1 for value in ratio)
        note = f"{slower:+.1%}, 95 % interval {least:+.1%} to {most:+.1%}, p{profile.budget.percentile} of both timed in turns in one process"
        verdict = verdict_within(least, most, limits.max_slowdown)
        name, unit = f"slowdown against {against.name}", "of its latency at most (95 %)"
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


def _time(engine: Engine, profile: HardwareProfile, timing: TimingConfig, release: Release, images: torch.Tensor, folder: Path) -> Times:
    percentile = profile.budget.percentile
    runs = {NEW: backend_of(profile.target).open_engine(engine.folder / engine.file, profile.target), EARLIER: release.open_engine()}
    clocks = {gating_clock(target, percentile) for target in (profile.target, release.manifest.profile.target)}
    clock = clocks.pop() if len(clocks) == 1 else CLOCKS[-1]
    samples = time_steadily(runs, images[torch.arange(profile.target.batch) % len(images)].numpy(), timing, clock, percentile)
    save_samples(folder / SAMPLES, samples)
    new, earlier = (summarise(samples[name], clock) for name in (NEW, EARLIER))
    ratio = new.at(percentile) / earlier.at(percentile)
    half = Z * ratio * math.hypot(*(percentile_error(samples[name], clock, percentile) for name in (NEW, EARLIER)))
    return Times(new, earlier, (ratio, ratio - half, ratio + half))
