"""One profile at one precision, or at each of several among which validation accuracy decides; the test part is run once, by what ships."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.branch import Branch, about_reference, grow_branch, pack
from bonsai.pipeline.run.inspecting import Network
from bonsai.pipeline.run.limits import require_runs
from bonsai.pipeline.run.other_limits import require_other_limits
from bonsai.pipeline.run.targets import ReadyTarget, prepare_target
from bonsai.pipeline.run.trunk import Monitor
from bonsai.profiles.errors import BudgetError
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.delivery.decisions import Tried
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.delivery.release import Release
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.steps.assess import assess
from bonsai.stages.steps.challenge import challenge
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Step
from bonsai.stages.tasks.registry import task_named

ArtifactT = TypeVar("ArtifactT", bound=Artifact)


class Precisions(NamedTuple):
    """A profile's targets, one per precision, the precisions that were left out before training, and what was made to find those out."""

    targets: tuple[ReadyTarget, ...]
    refused: tuple[Tried, ...]
    evidence: tuple[Artifact, ...] = ()

    def having(self, refused: Sequence[Tried], evidence: Sequence[Artifact]) -> "Precisions":
        """Return these with more that were left out, and with what else was made."""
        return self._replace(refused=(*self.refused, *refused), evidence=(*self.evidence, *evidence))


def prepare_precisions(recipe: Recipe, profile: HardwareProfile, network: Network, step: Step, smaller: Sequence[Network] = ()) -> Precisions:
    """Make every precision of a profile ready.

    Raises:
        BudgetError: None can meet the budget.
        ConfigError: An engine is too slow at a point for the p99 that is limited there.
    """
    targets, refused, errors = [], [], []
    for variant in profile.variants():
        try:
            ready = prepare_target(recipe, variant, network, step, smaller)
            require_other_limits(ready.followed)
            for timer in ready.points:
                require_runs(timer.at, recipe.timing, timer.at.budget.limit_ms(timer.dense_ms))
            targets.append(ready)
        except BudgetError as error:
            errors.append(error)
            outcome = "cannot meet the budget at any width"
            refused.append(Tried.left_out(variant.target.precision, task_named(recipe.task).metric.name, outcome))
    if not targets:
        raise errors[0]
    return Precisions(tuple(targets), tuple(refused))


def finish(
    recipe: Recipe,
    dataset: Dataset,
    network: Network,
    precisions: Precisions,
    monitors: Sequence[Monitor],
    dense: Checkpoint | None,
    step: Step,
    release: Release | None = None,
    *,
    remeasure: bool = False,
) -> Package:
    """Grow a profile's branches, choose the one whose engine meets the gates with the best validation accuracy, test that engine, and package it.

    If an earlier package is given, the engine is also compared with the engine in it. With `remeasure`, the engine is timed again for its verdict.
    """
    considered: list[Artifact] = [*precisions.evidence]

    def noting(stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        artifact = step(stage, **inputs)
        considered.append(artifact)
        return artifact

    grown = [grow_branch(recipe, dataset, monitor, dense, noting) for monitor in monitors if monitor.target in precisions.targets]
    considered += [artifact for target in precisions.targets for artifact in target.evidence]
    metric = task_named(dataset.task).metric
    best, attempts = max(grown, key=lambda pair: (pair[0].passed, pair[0].strained <= 1, metric.merit(pair[0].validation.value)))
    judged = {"dense": best.reference, "engine": best.engine, "dataset": best.dataset, "profile": best.target.profile.alone}
    assessed = step(assess, measurement=best.measurement, **judged, **about_reference(dense), **best.about_full(dataset))
    facts = {"measurement": assessed, "engine": best.engine, "dataset": best.dataset, "profile": best.target.profile, "timing": recipe.timing}
    challenged = step(challenge, **facts, release=release) if release is not None else None
    tried = [
        Tried(
            precision=branch.target.profile.target.precision,
            metric=metric.name,
            validation=branch.validation.value,
            test=assessed.shipped_row.judged.value if branch is best else None,
            latency=branch.used,
            outcome=_outcome(branch, best),
        )
        for branch, _ in grown
    ]
    searched = len(tried) + len(precisions.refused) > 1
    others = (*tried, *precisions.refused) if searched else ()
    return pack(recipe, dataset, network, dense, best, assessed, challenged, attempts, others, considered, step, remeasure=remeasure)


def _outcome(branch: Branch, best: Branch) -> str:
    on_validation = f"{'meets the gates' if branch.passed else 'misses a gate'} on the validation part"
    verdict = "shipped" if branch is best else on_validation
    return verdict if branch.target.info.present else f"{verdict}, latency {branch.measurement.gates[0].note}"
