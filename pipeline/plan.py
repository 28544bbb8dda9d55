"""What a run would do: everything validated, nothing trained, nothing written to the store."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cautions import warn_of_few
from pipeline.conduct import AllOrNothing
from pipeline.flow import grow
from pipeline.recipe import Recipe
from pipeline.targets import dialects_of, inspect_network, width_choices
from pipeline.trunk import segment_stops
from profiles.schema import HardwareProfile
from profiles.source import Record
from stages.artifacts import Artifact
from stages.backends.registry import check_target
from stages.data.registry import source_digest
from stages.prepare import prepare
from stages.store import Store

ArtifactT = TypeVar("ArtifactT", bound=Artifact)
ORDER = ("prepare", "characterize", "sketch", "compile", "race", "warmup", "prune", "recover", "quantize", "export", "measure", "package")


class GroupPlan(Record):
    """A group and the widths that it may keep."""

    name: str
    width: int
    options: tuple[int, ...]


class TargetPlan(Record):
    """What a run would do for one profile.

    Attributes:
        device: The device, and whether it is in this machine.
        cached: Number of finished artifacts by stage.
        next_stage: First stage that would run; None if all is finished.
    """

    profile: str
    device: str
    budget: str
    gates: str
    groups: tuple[GroupPlan, ...]
    cached: dict[str, int]
    next_stage: str | None


class Plan(Record):
    """What a run would do.

    Attributes:
        epochs: At most: QAT may not be needed.
    """

    recipe: str
    images: dict[str, int]
    epochs: int
    trunk_segments: int
    targets: tuple[TargetPlan, ...]


class _NotCachedError(Exception):
    """The first stage without a finished artifact."""


def plan_run(recipe: Recipe, profiles: Sequence[HardwareProfile], store: Store) -> Plan:
    """Validate a run and look up what is finished already.

    Raises:
        BonsaiError: What the run itself would end with before training.
    """
    with tempfile.TemporaryDirectory() as scratch:
        inputs = {"data": recipe.data, "content": source_digest(recipe.data)}
        dataset = store.find(prepare, **inputs) or Store(Path(scratch)).run(prepare, **inputs)
    warn_of_few(dataset.sizes["test"], profiles)
    network = inspect_network(recipe, dataset.image_shape, len(dataset.classes), dialects_of(profiles))
    targets = []
    for profile in profiles:
        info = check_target(profile.target)
        options = width_choices(recipe, profile, network)
        cached, next_stage = _look_up(recipe, profile, store)
        targets.append(
            TargetPlan(
                profile=profile.name,
                device=f"{info.device}, {info.runtime} {info.runtime_version}, {profile.target.precision}" + ("" if info.present else " (not in this machine)"),
                budget=str(profile.budget),
                gates=profile.gates.model_dump_json(exclude_none=True),
                groups=tuple(GroupPlan(name=g.name, width=g.width, options=tuple(options[g.name])) for g in network.groups),
                cached=cached,
                next_stage=next_stage,
            )
        )
    stops, total = segment_stops(recipe, dataset.sizes["train"])
    return Plan(
        recipe=recipe.name,
        images=dataset.sizes,
        epochs=recipe.training.epochs + (recipe.quantize.most_epochs if any(p.target.precision == "int8" for p in profiles) else 0),
        trunk_segments=len(stops) + (stops[-1] < total),
        targets=tuple(targets),
    )


def _look_up(recipe: Recipe, profile: HardwareProfile, store: Store) -> tuple[dict[str, int], str | None]:
    """Follow the flow through finished artifacts; return their number by stage and the first stage that has none."""
    found: dict[str, set[str]] = {}

    def step(stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        artifact = store.find(stage, **inputs)
        if artifact is None:
            raise _NotCachedError(stage.__name__)
        found.setdefault(stage.__name__, set()).add(artifact.key)
        return artifact

    logger = logging.getLogger("bonsai")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the checks of a finished trunk are no news
    try:
        grow(recipe, [profile], step, AllOrNothing(step))
        missing = None
    except _NotCachedError as absent:
        missing = str(absent)
    finally:
        logger.setLevel(level)
    return {stage: len(found[stage]) for stage in ORDER if stage in found}, missing
