"""Runs one recipe on several targets or in several variants. What they share is made once. One that fails does not stop the others.

comparison = compare("resnet-edge", ["local-cpu", "rtx-4090"])
comparison = compare("resnet-edge", ["local-cpu"], {"prune.criterion": ["snip", "magnitude_l2"]})
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bonsai.pipeline.compare.comparison import Comparison, Outcome, cost_of, outcome_of, to_csv
from bonsai.pipeline.compare.sweep import variants_of
from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.conduct import Growth, require_gates
from bonsai.pipeline.run.flow import deliver
from bonsai.pipeline.run.loading import DEFAULT_STORE
from bonsai.pipeline.run.publish import replace_folder
from bonsai.pipeline.run.side_by_side import ChildProcesses, branches_at_once, grow_side_by_side
from bonsai.profiles.errors import BonsaiError
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.delivery.contents import read_intact
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.reporting.writing import write_reports
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import Step, Store, require_writable_folder
from bonsai.stages.training.progress import say

ArtifactT = TypeVar("ArtifactT", bound=Artifact)
ResultT = TypeVar("ResultT")
BranchRunner = Callable[[Mapping[str, Growth]], dict[str, Package | BonsaiError]]
"""Calls the branch of every profile once, in any order and in any thread, and returns all results."""
COMPARISONS, RECORD, TABLE = "comparisons", "comparison.json", "comparison.csv"


def compare(
    recipe: str,
    profiles: Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    store: Path = DEFAULT_STORE,
    out: Path | None = None,
    step: Step | None = None,
    branch_runner: BranchRunner | None = None,
    at_once: int | None = None,
    tracker: str | None = None,
    allow_undecided: bool = False,
) -> Comparison:
    """Compress a recipe's network for several targets, or in several variants, and set the results side by side.

    If one profile fails (its device is not here, its budget cannot be met, its engine cannot be built), the error is logged at once and becomes the
    outcome of that profile; the others continue. If all profiles fail before training, nothing is trained. If what all profiles of a variant share
    fails, such as its training, that is the outcome of each of them, and the other variants continue.

    Files: ``<store>/comparisons/<recipe>/`` with ``comparison.json``, ``comparison.csv``, ``report.html`` and ``report.md``, replaced as a whole.

    Args:
        recipe: Name of a shipped recipe, or path of a recipe file.
        profiles: Names or paths.
        overrides: As for `compress`; of several values for a key (`pipeline/compare/sweep.py`) each makes a variant, with a package per profile. Variants
            run one after another, and are all loaded before the first.
        store: Folder of the artifacts.
        out: Folder of the packages; ``<store>/packages`` if None.
        step: Runs one stage; by default a plain call, or a call in a child process where branches grow side by side.
        branch_runner: Runs the branches; it may call them in threads if `step` may be called in threads.
        at_once: Branches that grow side by side; as many as the cores allow if None. Left out where `step` or `branch_runner` is given.
        tracker: As for `compress`.
        allow_undecided: Whether a profile's gate may be undecided.

    Raises:
        BonsaiError: An error that concerns all profiles: in the recipe, the data, the training of the trunk, or an invalid profile file. Of several
            variants only an error in loading one is raised.
    """
    variants = variants_of(overrides or {})
    loaded = [variant.load(recipe, profiles) for variant in variants]
    outcomes, used = list[Outcome](), dict[str, list[Artifact]]()

    def grow(loaded: Recipe, targets: Sequence[HardwareProfile]) -> dict[str, Package | BonsaiError]:
        own = step is None and branch_runner is None
        count = (at_once or branches_at_once(loaded.training, len(targets))) if own else 1
        with ChildProcesses(Store(store)) as children:
            run = step or (children.run if count > 1 else Store(store).run)
            kept = KeepGoing(run, branch_runner or (lambda branches: grow_side_by_side(branches, count, children.stop)))
            grown = deliver(loaded, targets, kept.shared_step, kept, store=store, out=out, tracker=tracker)
        used.update({name: kept.used_by(name) for name, package in grown.items() if isinstance(package, Package)})
        return grown

    for variant, (of_variant, targets) in zip(variants, loaded, strict=True):
        try:
            grown = grow(of_variant, targets)
        except BonsaiError as error:
            if len(variants) == 1:
                raise
            say(f"{variant.name}: FAILED (code {error.exit_code}), the other variants go on: {error}")
            grown = {target.name: error for target in targets}
        folder = out or store / "packages"
        outcomes += [outcome_of(target, grown[target.name], folder, variant.settings, allow_undecided=allow_undecided) for target in targets]
    comparison = Comparison(recipe=loaded[0][0].name, outcomes=tuple(outcomes), cost=cost_of(used))
    save(comparison, store)
    return comparison


class KeepGoing:
    """A profile that fails is noted, and the others go on; what every profile uses of the store is noted too.

    Args:
        step: Runs one stage.
        grow_branches: Runs the branches.
    """

    def __init__(self, step: Step, grow_branches: BranchRunner) -> None:
        self._step, self._grow_branches = step, grow_branches
        self._shared: list[Artifact] = []
        self._own: dict[str, list[Artifact]] = {}

    def shared_step(self, stage: Callable[..., ArtifactT], /, **inputs: Any) -> ArtifactT:
        """Run a stage that all profiles share."""
        return self._note(self._shared, stage, inputs)

    def step_of(self, profile: str) -> Step:
        """Return what runs the stages of one profile; its branch alone calls it, so that the list needs no lock."""
        used = self._own.setdefault(profile, [])
        return lambda stage, /, **inputs: self._note(used, stage, inputs)

    def attempt(self, profile: str, call: Callable[[], ResultT]) -> ResultT | BonsaiError:
        """Do what concerns one profile; log its error at once, and return it."""
        try:
            return call()
        except BonsaiError as error:
            say(f"{profile}: FAILED (code {error.exit_code}), the other profiles go on: {error}")
            return error

    def grow_branches(self, branches: Mapping[str, Growth]) -> dict[str, Package | BonsaiError]:
        """Grow them as the caller wants."""
        return self._grow_branches(branches)

    def used_by(self, profile: str) -> list[Artifact]:
        """Return what a profile needed: the shared artifacts and its own."""
        return [*self._shared, *self._own.get(profile, [])]

    def _note(self, used: list[Artifact], stage: Callable[..., ArtifactT], inputs: dict[str, Any]) -> ArtifactT:
        artifact = self._step(stage, **inputs)
        used.append(artifact)
        return artifact


def comparison_folder(store: Path, recipe: str) -> Path:
    """Return where the files of a recipe's comparison lie."""
    return store / COMPARISONS / recipe


def save(comparison: Comparison, store: Path) -> None:
    """Write the comparison's files, replacing those of an earlier comparison of the recipe."""
    folder = comparison_folder(store, comparison.recipe)
    require_writable_folder(folder.parent, "--store")

    def write(fresh: Path) -> None:
        (fresh / RECORD).write_text(comparison.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (fresh / TABLE).write_text(to_csv(comparison.outcomes), encoding="utf-8")
        failures = {outcome.profile: outcome.error for outcome in comparison.outcomes if outcome.error}
        write_reports(
            fresh,
            [read_intact(Path(outcome.folder)) for outcome in comparison.outcomes if outcome.package],
            title=comparison.title,
            failures=failures,
            note=comparison.cost.sentence,
        )

    replace_folder(folder, write)


class ProfilesFailed(BonsaiError):
    """Some profiles ended with an error; the code is that of the first."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def require_all(comparison: Comparison, *, allow_undecided: bool = False) -> None:
    """Check that every profile ended with a package whose gates are met.

    Args:
        comparison: Result of the comparison.
        allow_undecided: Whether a gate may be undecided.

    Raises:
        ProfilesFailed: Some did not end with a package.
        GateMissed: All did, and a gate is missed, or undecided where it may not be.
    """
    failed = [f"{outcome.profile} (code {outcome.exit_code})" for outcome in comparison.outcomes if outcome.error]
    if failed:
        raise ProfilesFailed(f"{len(failed)} of {len(comparison.outcomes)} profiles failed: {', '.join(failed)}", comparison.exit_code)
    require_gates({outcome.package: outcome.gates for outcome in comparison.outcomes}, allow_undecided=allow_undecided)
