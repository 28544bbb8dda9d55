"""The plan of a run (`--dry-run`): checks everything, trains nothing and writes nothing to the store."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.cautions import require_gates, warn_of_few
from bonsai.pipeline.run.conduct import AllOrNothing
from bonsai.pipeline.run.flow import check_profile, grow
from bonsai.pipeline.run.inspecting import dialects_of, inspect_network
from bonsai.pipeline.run.own_preprocessing import prepare_inputs
from bonsai.pipeline.run.preflight import what_is_tried
from bonsai.pipeline.run.prospects import NotFinishedError, Prospect, finished_only, foresee
from bonsai.pipeline.run.releases import read_releases, require_releases
from bonsai.pipeline.run.resolutions import smaller_networks
from bonsai.pipeline.run.starting_weights import Weights, check_start, weights_of
from bonsai.pipeline.run.trunk import segment_stops
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.devices import device_of
from bonsai.stages.delivery.release import Release
from bonsai.stages.selection.choices import width_choices
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.package import package
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.steps.time_engine import time_engine
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Store
from bonsai.stages.training.batches import require_batches
from bonsai.stages.training.progress import say, silence

ArtifactT = TypeVar("ArtifactT", bound=Artifact)


class GroupPlan(Record):
    """A group and the widths that it may keep.

    Attributes:
        width: Channels of the dense network.
        positions: Outputs of the layer that names the group, per channel.
    """

    name: str
    width: int
    positions: int = 1
    options: tuple[int, ...]


class TargetPlan(Record):
    """The part of the plan for one profile.

    Attributes:
        device: The device, and whether it is in this machine.
        preflight: The checks before training, and those that cannot be made.
        prospect: What the run can gain.
        cached: Number of finished artifacts by stage, in the order in which the flow calls the stages.
        next_stage: First stage that would run; None if all is finished.
    """

    profile: str
    device: str
    budget: str
    gates: str
    preflight: str
    prospect: Prospect
    groups: tuple[GroupPlan, ...]
    cached: dict[str, int]
    next_stage: str | None


class Plan(Record):
    """What a run would do.

    Attributes:
        epochs: At most: QAT may not be needed.
        trunk_segments: At most: if no reference is trained, the trunk ends when the last target branches off.
    """

    recipe: str
    images: dict[str, int]
    epochs: int
    trunk_segments: int
    targets: tuple[TargetPlan, ...]


def plan_run(recipe: Recipe, profiles: Sequence[HardwareProfile], store: Store, against: Sequence[Path] = ()) -> Plan:
    """Validate a run and look up what is finished already.

    Args:
        recipe: The network, the data and all settings.
        profiles: The targets.
        store: Store that is searched for finished artifacts.
        against: Folders of earlier packages, as for `compress`.

    Raises:
        BonsaiError: The error that the run itself would end with before training.
    """
    releases = read_releases(against, profiles)
    with tempfile.TemporaryDirectory() as folder:
        return _plan(recipe, profiles, store, Store(Path(folder)), releases)


def _plan(recipe: Recipe, profiles: Sequence[HardwareProfile], store: Store, scratch: Store, releases: Mapping[str, Release]) -> Plan:
    inputs = prepare_inputs(recipe)
    dataset = store.find(prepare, **inputs) or scratch.run(prepare, **inputs)
    require_batches(dataset, recipe.training)
    require_releases(releases.values(), dataset)
    require_gates(dataset, profiles)
    warn_of_few(dataset, profiles)
    network = inspect_network(recipe, dataset.image_shape, len(dataset.classes), dialects_of(profiles))
    smaller = smaller_networks(recipe, dataset, network, profiles, dialects_of(profiles), compared=bool(releases))
    start = {"dataset": dataset, "model": recipe.model, "weights": _weights_at_hand(recipe, store)}
    check_start(store.find(initialise, **start) or scratch.run(initialise, **start), dataset, recipe)
    targets = []
    for profile in profiles:
        info = device_of(profile.target).describe(profile.target)
        check_profile(profile, recipe.timing)
        options = width_choices(network.groups, recipe.prune, profile)
        cached, next_stage = look_up(recipe, profile, store, releases)
        targets.append(
            TargetPlan(
                profile=profile.name,
                device=f"{info.device}, {info.runtime} {info.runtime_version}, {profile.target.precision}" + ("" if info.present else " (not in this machine)"),
                budget=profile.asked,
                gates=profile.gates.model_dump_json(exclude_none=True),
                preflight=what_is_tried(profile, info),
                prospect=foresee(recipe, profile, network, options, info, store=store, scratch=scratch, smaller=smaller),
                groups=tuple(GroupPlan(name=g.name, width=g.width, positions=g.positions, options=tuple(options[g.name])) for g in network.groups),
                cached=cached,
                next_stage=next_stage,
            )
        )
    stops, total = segment_stops(recipe, dataset.sizes["train"])
    to_the_end = "trained" in (recipe.training.reference, recipe.prune.policy.name)
    return Plan(
        recipe=recipe.name,
        images=dataset.sizes,
        epochs=recipe.training.epochs + (recipe.quantize.most_epochs if any(p.target.precision == "int8" for p in profiles) else 0),
        trunk_segments=len(stops) + (stops[-1] < total and to_the_end),
        targets=tuple(targets),
    )


def _weights_at_hand(recipe: Recipe, store: Store) -> Weights:
    """Return the weights that a run starts with; random ones in place of those that it would train first, which is said."""
    try:
        with silence():
            return weights_of(recipe.model, store.root, finished_only(store))
    except NotFinishedError:
        say(f"{recipe.model.weights} is not trained yet: a run trains that network first; what follows is checked with random weights")
        return None


def require_finished(recipe: Recipe, profiles: Sequence[HardwareProfile], store: Store) -> None:
    """Check that every profile's engine is finished and measured, so that it can be timed again without training.

    Raises:
        ConfigError: One is not, or its device is not here.
    """
    for profile in profiles:
        if not device_of(profile.target).describe(profile.target).present:
            raise ConfigError(
                describe(
                    f"--remeasure: profile {profile.name} cannot be timed",
                    given=f"{profile.target.device.name} is not in this machine: its latency is an estimate",
                    allowed="profiles whose device is here",
                    fix="leave this profile out, give the profile the device's address (docs/devices.md), or run it on the device",
                )
            )
        _, missing = look_up(recipe, profile, store, {})
        if missing not in {None, time_engine.__name__, package.__name__}:
            raise ConfigError(
                describe(
                    f"--remeasure: profile {profile.name} has no finished engine",
                    given=f"stage {missing} has not run with this recipe, profile and version of the tools in {store.root.name}",
                    allowed="a run that has ended",
                    fix="run the same command without --remeasure first",
                )
            )


def look_up(recipe: Recipe, profile: HardwareProfile, store: Store, releases: Mapping[str, Release]) -> tuple[dict[str, int], str | None]:
    """Follow the flow through finished artifacts; return their number by stage and the first stage that has none."""
    found: dict[str, set[str]] = {}

    def step(stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        artifact = store.find(stage, **inputs)
        if artifact is None:
            raise NotFinishedError(stage.__name__)
        found.setdefault(stage.__name__, set()).add(artifact.key)
        return artifact

    own = {name: release for name, release in releases.items() if name == profile.name}
    try:
        with silence():  # the checks of a finished trunk are no news
            grow(recipe, [profile], step, AllOrNothing(step), weights_of(recipe.model, store.root, step), own)
        missing = None
    except NotFinishedError as absent:
        missing = str(absent)
    return {stage: len(keys) for stage, keys in found.items()}, missing
