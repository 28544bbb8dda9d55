"""One profile at one precision, or at each of several among which accuracy decides."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from pipeline.branch import Branch, grow_branch, pack
from pipeline.recipe import Recipe
from pipeline.targets import Network, ReadyTarget
from pipeline.trunk import Watch
from profiles.errors import BudgetError
from profiles.schema import HardwareProfile
from stages.artifacts import Artifact, Checkpoint, Dataset
from stages.decisions import Tried
from stages.package import Package
from stages.store import Step

ArtifactT = TypeVar("ArtifactT", bound=Artifact)


class Field(NamedTuple):
    """A profile's targets, one per precision, and the precisions that cannot meet its budget."""

    targets: tuple[ReadyTarget, ...]
    refused: tuple[Tried, ...]


def prepare_field(recipe: Recipe, profile: HardwareProfile, network: Network, step: Step) -> Field:
    """Make every precision of a profile ready.

    Raises:
        BudgetError: None can meet the budget.
    """
    targets, refused, errors = [], [], []
    for variant in profile.variants():
        try:
            targets.append(ReadyTarget(recipe, variant, network, step))
        except BudgetError as error:
            errors.append(error)
            outcome = "cannot meet the budget at any width"
            refused.append(Tried(precision=variant.target.precision, validation_top1=None, test_top1=None, latency=None, outcome=outcome))
    if not targets:
        raise errors[0]
    return Field(tuple(targets), tuple(refused))


def harvest(
    recipe: Recipe, dataset: Dataset, network: Network, field: Field, watches: Sequence[Watch], dense: Checkpoint, step: Step, *, remeasure: bool = False
) -> Package:
    """Grow a profile's branches, and package the one whose engine meets the gates with the best validation accuracy.

    Where `remeasure` is set, that engine is timed again for its verdict.
    """
    considered: list[Artifact] = []

    def noting(stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        artifact = step(stage, **inputs)
        considered.append(artifact)
        return artifact

    grown = [grow_branch(recipe, dataset, watch, dense, noting) for watch in watches if watch.target in field.targets]
    considered += [artifact for target in field.targets for artifact in target.evidence]
    best, attempts = max(grown, key=lambda pair: (pair[0].passed, pair[0].used <= 1, pair[0].validation_top1))
    tried = [
        Tried(
            precision=branch.target.profile.target.precision,
            validation_top1=branch.validation_top1,
            test_top1=branch.measurement.shipped_row.accuracy.top1,
            latency=branch.used,
            outcome=_outcome(branch, best),
        )
        for branch, _ in grown
    ]
    searched = len(tried) + len(field.refused) > 1
    return pack(recipe, dataset, network, dense, best, attempts, (*tried, *field.refused) if searched else (), considered, step, remeasure=remeasure)


def _outcome(branch: Branch, best: Branch) -> str:
    verdict = "shipped" if branch is best else "meets the gates" if branch.passed else "misses a gate"
    return verdict if branch.target.info.present else f"{verdict}, latency estimated"
