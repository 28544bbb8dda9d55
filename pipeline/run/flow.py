"""The order of all stages, from a recipe and its profiles to packages.

    compress("resnet-edge", ["local-cpu"])

`step` runs a stage: as a plain call (`Store.run`) or as a Prefect task (`pipeline/service/tasks.py`). A `Conduct` decides what happens to the
other profiles when one fails. `compress` stops the whole run; `pipeline/compare/comparing.py` goes on with the others.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.cautions import require_gates, warn_of_chance, warn_of_few
from bonsai.pipeline.run.conduct import AllOrNothing, Conduct
from bonsai.pipeline.run.inspecting import dialects_of, inspect_network
from bonsai.pipeline.run.limits import require_measurable, require_runs
from bonsai.pipeline.run.loading import DEFAULT_STORE, load
from bonsai.pipeline.run.own_preprocessing import prepare_inputs
from bonsai.pipeline.run.precisions import Precisions, finish, prepare_precisions
from bonsai.pipeline.run.preflight import Cleared, preflight_all
from bonsai.pipeline.run.publish import publish
from bonsai.pipeline.run.releases import read_releases, require_releases
from bonsai.pipeline.run.repeating import Notes, warnings_of_run
from bonsai.pipeline.run.resolutions import smaller_networks
from bonsai.pipeline.run.starting_weights import Weights, check_start, weights_of
from bonsai.pipeline.run.trunk import grow_trunk, segment_stops
from bonsai.profiles.errors import BonsaiError
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.delivery.release import Release
from bonsai.stages.imports.contents import keep_hashes
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import HASHES, Step, Store, require_writable_folder
from bonsai.stages.training.batches import require_batches
from bonsai.stages.training.tracking import VARIABLE, scope, track, tracking


def compress(
    recipe: str,
    profile: str | Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    store: Path = DEFAULT_STORE,
    out: Path | None = None,
    step: Step | None = None,
    tracker: str | None = None,
    against: Path | Sequence[Path] = (),
    remeasure: bool = False,
) -> tuple[Package, ...]:
    """Compress a recipe's network for one or more targets, sharing one trunk.

    Args:
        recipe: Name of a shipped recipe, or path of a recipe file.
        profile: One profile or several, by name or path; the recipe's own if None.
        overrides: Values that replace those of the recipe, by dotted key. Keys that begin with ``profile.`` change every profile:
            ``{"quantize.epochs": 2, "profile.budget.latency": 0.3}``.
        store: Folder of the artifacts.
        out: Folder of the packages; ``<store>/packages`` if None.
        step: Runs one stage; a plain call by default.
        tracker: Experiment tracker that gets loss and accuracy during the run: ``tensorboard:DIR`` or ``mlflow:URI``. If None, the environment
            variable ``BONSAI_TRACKER`` decides.
        against: Folder of an earlier package that the engine is compared with. For several profiles, give one folder each; the profile's name
            in the package tells which is which.
        remeasure: Whether finished engines are timed again, even if they have a verdict already.

    Returns:
        A package per profile. Its `gates` say what is met, missed or undecided.

    Raises:
        BonsaiError: With a message for the user; its `exit_code` is that of the command line.
    """
    loaded, profiles = load(recipe, profile, overrides)
    releases = read_releases([against] if isinstance(against, Path) else against, profiles)
    notes = Notes(loaded, profiles, step or Store(store).run)
    with warnings_of_run() as warnings:
        conduct = AllOrNothing(notes.step)
        grown = deliver(loaded, profiles, notes.step, conduct, store=store, out=out, tracker=tracker, releases=releases, remeasure=remeasure)
    packages = tuple(package for package in grown.values() if isinstance(package, Package))
    if not releases:  # an earlier package lies where it may change
        notes.keep(store, packages, warnings)
    return packages


def deliver(
    recipe: Recipe,
    profiles: Sequence[HardwareProfile],
    step: Step,
    conduct: Conduct,
    *,
    store: Path,
    out: Path | None,
    tracker: str | None = None,
    releases: Mapping[str, Release] = {},
    remeasure: bool = False,
) -> dict[str, Package | BonsaiError]:
    """Check, compress and publish: the whole run for every profile.

    Args:
        recipe: The network, the data and all settings.
        profiles: The targets.
        step: Runs a stage that all profiles share.
        conduct: Runs the work of a single profile, and decides what happens if that fails.
        store: Folder of the artifacts.
        out: Folder of the packages; ``<store>/packages`` if None.
        tracker: As for `compress`.
        releases: By profile name, the earlier package that its engine is compared with.
        remeasure: Whether finished engines are timed again.

    Returns:
        By profile name, in the order given: its package, or the error, if `conduct` did not end the run.
    """
    checked = {profile.name: conduct.attempt(profile.name, partial(check_profile, profile, recipe.timing)) for profile in profiles}
    require_writable_folder(store, "--store")
    require_writable_folder(out or store / "packages", "--out")
    keep_hashes(store / HASHES)
    fit = [profile for profile in profiles if not isinstance(checked[profile.name], BonsaiError)]
    with Store(store).in_use(), tracking(tracker or os.environ.get(VARIABLE) or None, run=recipe.name):
        grown = grow(recipe, fit, step, conduct, weights_of(recipe.model, store, step) if fit else None, releases, remeasure=remeasure)
        for package in grown.values():
            if isinstance(package, Package):
                publish(package, out or store / "packages")
                _track_results(package)
    return {name: error if isinstance(error, BonsaiError) else grown[name] for name, error in checked.items()}


def check_profile(profile: HardwareProfile, timing: TimingConfig) -> None:
    """Check that this machine can build engines for a profile, at every precision that is to be tried, and judge its budget.

    Raises:
        ConfigError: The runtime cannot do what the profile asks, or the budget limits what is not measured here.
        DeviceUnavailable: The runtime is not installed, or the device that it builds on is not in this machine.
    """
    for variant in profile.variants():
        for one in (variant, *variant.at_points().values()):
            require_measurable(one, device_of(one.target).describe(one.target))
    for one in (profile, *profile.at_points().values()):
        require_runs(one, timing)


def _track_results(finished: Package) -> None:
    """Send the result rows of a package to the tracker, all as step 0: they belong to no training step."""
    for row in finished.rows:
        results = {"size_mb": row.size_bytes / 1e6, **(row.footprint.figures if row.footprint is not None else {})}
        if row.accuracy is not None:
            results[row.accuracy.metric if row.accuracy.part == "test" else f"validation_{row.accuracy.metric}"] = row.accuracy.value
        if row.latency is not None:
            results |= {"p99_ms": row.latency.p99} if row.latency.p99 is not None else {}
            results["p50_ms" if row.latency.source == "measured" else "p50_ms_estimated"] = row.latency.p50
        with scope(f"{finished.name}/{'shipped' if row.shipped else row.label.lower().replace(' ', '-')}"):
            track(results, step=0)


def grow(
    recipe: Recipe,
    profiles: Sequence[HardwareProfile],
    step: Step,
    conduct: Conduct,
    weights: Weights,
    releases: Mapping[str, Release] = {},
    *,
    remeasure: bool = False,
) -> dict[str, Package | BonsaiError]:
    """Run all stages for all targets: the trunk once, then a branch per target.

    If every profile fails its checks, nothing is trained.

    Args:
        recipe: The network, the data and all settings.
        profiles: The targets.
        step: Runs a stage that all profiles share.
        conduct: Runs the work of a single profile, and decides what happens if that fails.
        weights: The weights that the network starts with (`weights_of`).
        releases: By profile name, the earlier package that its engine is compared with.
        remeasure: Whether the finished engines are timed again.
    """
    if not profiles:
        return {}
    dataset = step(prepare, **prepare_inputs(recipe))
    segment_stops(recipe, dataset.sizes["train"])  # refuses a training that is too short before anything is timed
    require_batches(dataset, recipe.training)
    require_releases(releases.values(), dataset)
    require_gates(dataset, profiles)
    warn_of_few(dataset, profiles)
    network = inspect_network(recipe, dataset.image_shape, len(dataset.classes), dialects_of(profiles))
    smaller = smaller_networks(recipe, dataset, network, profiles, dialects_of(profiles), compared=bool(releases))
    initial = step(initialise, dataset=dataset, model=recipe.model, weights=weights)
    check_start(initial, dataset, recipe)
    cleared = {p.name: conduct.attempt(p.name, partial(preflight_all, recipe, p, (network, *smaller), conduct.step_of(p.name))) for p in profiles}

    def ready(name: str, found: Cleared | BonsaiError) -> Precisions | BonsaiError:
        if isinstance(found, BonsaiError):
            return found
        prepared = conduct.attempt(name, lambda: prepare_precisions(recipe, found.profile, network, conduct.step_of(name), smaller))
        return prepared.having(found.refused, found.evidence) if isinstance(prepared, Precisions) else prepared

    found = {name: ready(name, clear) for name, clear in cleared.items()}
    precisions = {name: prepared for name, prepared in found.items() if isinstance(prepared, Precisions)}
    failed = {name: error for name, error in found.items() if isinstance(error, BonsaiError)}
    if not precisions:
        return dict(failed)
    monitors, dense = grow_trunk(recipe, dataset, initial, [target for prepared in precisions.values() for target in prepared.targets], step)
    if dense is not None and dense is not initial:  # `check_start` has looked at that one
        warn_of_chance(dense, dataset)

    def branch(name: str) -> Package | BonsaiError:
        own, release = conduct.step_of(name), releases.get(name)
        return conduct.attempt(name, lambda: finish(recipe, dataset, network, precisions[name], monitors, dense, own, release, remeasure=remeasure))

    grown = conduct.grow_branches({name: partial(branch, name) for name in precisions})
    return {profile.name: failed.get(profile.name) or grown[profile.name] for profile in profiles}
