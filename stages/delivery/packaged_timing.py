"""Times a packaged engine on this machine or another one, and judges its budget where that can be done."""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from bonsai.profiles.errors import describe
from bonsai.profiles.schema import HardwareProfile, Target
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import Engine, EngineFile
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.compatibility import find_absence
from bonsai.stages.delivery.contents import PackageManifest, read_any_intact
from bonsai.stages.delivery.deployed import DeployedManifest
from bonsai.stages.delivery.packed_facts import PackedFacts
from bonsai.stages.delivery.sums import CHANGED
from bonsai.stages.errors import ArtifactDamaged, VerificationError
from bonsai.stages.measurement.alone_timing import time_alone
from bonsai.stages.measurement.budget_gates import judge_latency, judge_others, limit_of, named_at, untold_of
from bonsai.stages.measurement.footprint import Footprint
from bonsai.stages.measurement.fresh_timing import milliseconds_of, time_afresh
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import Fresh, Gate
from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.store.manifest import MANIFEST, Manifest, read_manifest

STAGE = "time_engine/"
"""Prefix of the address of the timing that judged the engine. Its lineage includes the dense engine."""


class PackagedTiming(NamedTuple):
    """The result as lines of text, and the gates of the budget that could be judged."""

    lines: list[str]
    gates: tuple[Gate, ...]


def time_package(folder: Path, store: Path, there: Target | None = None) -> PackagedTiming:
    """Time the engine of a package in several processes, and run it alone for its start, memory and energy.

    A budget in milliseconds can always be judged. A budget that is a fraction of the dense engine's latency needs that engine, which is not in the
    package; it is judged if the store still has it.

    Args:
        folder: A package that `verify_package` accepts on the device.
        store: Folder of the artifacts, which need not exist.
        there: Target at whose address the device is; None for this machine.

    Raises:
        VerificationError: The package is not as it was sealed.
        TimingFailed: A process crashed, was ended, or could not open an engine.
    """
    manifest = read_any_intact(folder)
    timing, said = _told(manifest)
    target = manifest.profile.target
    target = target if there is None else target.on_device_of(there)
    device = device_of(target)
    absence = find_absence(manifest.compatibility, device.machine())
    if absence is not None:
        return PackagedTiming([f"not timed: {absence}"], ())
    dense = find_dense(manifest, store)
    file, profile = folder / manifest.engine.file, manifest.profile.model_copy(update={"target": target})
    with device.hold():
        own = _time(file, manifest, profile, dense, timing)
        points = {label: _time(file, manifest, point, dense, timing) for label, point in profile.at_points().items()}
    said_at = {at.point: at.engine for at in manifest.points} if isinstance(manifest, PackageManifest) else {}
    judged = [_judge(own, profile, file, dense, store, _describe(own.fresh, manifest, said))]
    for label, point in profile.at_points().items():
        timed, told = points[label], _describe(points[label].fresh, manifest, said_at.get(label))
        lines, gates = _judge(timed, point, file, dense, store, told)
        judged.append(PackagedTiming([f"at {label}: {line}" for line in lines], named_at(gates, label)))
    gates = tuple(gate for each in judged for gate in each.gates)
    return PackagedTiming([*(line for each in judged for line in each.lines), *(gate.sentence for gate in gates)], gates)


class _Timed(NamedTuple):
    fresh: Fresh
    footprint: Footprint | None


def _time(file: Path, manifest: PackedFacts, profile: HardwareProfile, dense: Engine | None, timing: TimingConfig) -> _Timed:
    """Time an engine beside the dense one, where that is here, and alone, by a profile: the package's, or that at a point."""
    target, budget = profile.target, profile.budget
    engine, is_judged = EngineFile(file=file, target=target), budget.latency is None or dense is not None
    with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
        fresh = time_afresh(
            Path(scratch),
            engine,
            dense.for_target(target) if dense is not None else None,
            image_shape=manifest.engine.image_shape,
            reference_shape=dense.image_shape if dense is not None else None,
            timing=timing,
            percentile=budget.percentile,
            relative=budget.latency is not None and dense is not None,
            limit=limit_of(budget, target.reference)[0] if is_judged else None,
            tail_ms=budget.p99_ms,
        )
    return _Timed(fresh, time_alone(engine, image_shape=manifest.engine.image_shape, timing=timing, budget=budget))


def _judge(timed: _Timed, profile: HardwareProfile, file: Path, dense: Engine | None, store: Path, told: str) -> PackagedTiming:
    """Return the gates of one budget, and lines on the figures and on what cannot be judged; `told` is the line on the latency."""
    (fresh, footprint), budget, reference = timed, profile.budget, profile.target.reference
    unknown = untold_of(budget, footprint)
    lines = [told, *([footprint.sentence] if footprint is not None else [])]
    lines += [f"{key} not judged: {reason}" for key, reason in unknown.items()]
    gates = judge_others(fresh, footprint, file.stat().st_size, budget.model_copy(update=dict.fromkeys(unknown)))
    if budget.latency is None or dense is not None:
        return PackagedTiming(lines, (judge_latency(fresh, budget, reference), *gates))
    limit, unit = limit_of(budget, reference)
    why = "a package does not hold the dense engine, and this store does not have it"
    lines.append(f"latency not judged: the limit is {limit:g} {unit}; {why} ({store}): name the store it was made in, --store DIR")
    return PackagedTiming(lines, gates)


def find_dense(manifest: PackedFacts, store: Path) -> Engine | None:
    """Return the dense engine that the package's engine was judged against, if the store has it as it was made."""
    for timing in (ancestor for ancestor in manifest.lineage if ancestor.artifact.startswith(STAGE)):
        made_by = _manifest_in(store, timing.artifact)
        dense = made_by.inputs["dense"] if made_by is not None and made_by.record["digest"] == timing.digest else None
        address = dense["artifact"] if dense is not None else None
        kept = _manifest_in(store, address) if address is not None else None
        if kept is not None and kept.record["digest"] in {ancestor.digest for ancestor in manifest.lineage}:
            engine = Engine.model_validate({**kept.record, "folder": store / str(address)})
            file = engine.folder / engine.file
            if file.is_file() and sha256_file(file) == kept.files.get(engine.file):  # before anything interprets it
                return engine
    return None


def _manifest_in(store: Path, address: str) -> Manifest | None:
    with suppress(ArtifactDamaged):
        return read_manifest(store / address)
    return None


def _told(manifest: PackageManifest | DeployedManifest) -> tuple[TimingConfig, Latency]:
    """Return how the package's engine was timed, and what was found.

    Raises:
        VerificationError: The manifest does not tell.
    """
    if isinstance(manifest, DeployedManifest):
        if manifest.shipped.latency is None:
            problem = f"{MANIFEST}: tells not what latency was found"
            raise VerificationError(describe(problem, given=manifest.shipped.what, allowed="a shipped engine and its latency", fix=CHANGED))
        return manifest.timing, manifest.shipped.latency
    shipped = [row.latency for row in manifest.metrics if row.shipped and row.latency is not None and row.latency.p50 > 0]
    try:
        timing = TimingConfig.model_validate(manifest.recipe.get("timing", {}))
    except ValidationError as error:
        shipped, timing = [], TimingConfig()
        given = str(error.errors()[0]["msg"])
    else:
        given = f"{len(shipped)} shipped engines with a latency"
    if len(shipped) != 1:
        problem = f"{MANIFEST}: tells not how the engine was timed, or what was found"
        raise VerificationError(describe(problem, given=given, allowed="one shipped engine, its latency, and recipe.timing", fix=CHANGED))
    return timing, shipped[0]


def _describe(fresh: Fresh, manifest: PackedFacts, shipped: Latency | None) -> str:
    """Return what was found beside what the package says, where it says anything."""
    ms = milliseconds_of(fresh)
    clock = "by the wall" if fresh.percentile > 50 else f"clock {fresh.engine.clock}"
    found = f"latency: {ms.found:.4g} ms p{fresh.percentile} here, {clock} ({ms.sentence})"
    if shipped is None:
        return found
    said = shipped.at(fresh.percentile)
    return f"{found}, {ms.found / said:.2f} times what the package says: {said:.4g} ms, {shipped.told} for {manifest.device.device}"
