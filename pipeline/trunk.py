"""The trunk: dense training in segments, from which every target branches off when its EPI fires."""

from collections.abc import Mapping, Sequence

from pipeline.recipe import Recipe
from pipeline.targets import ReadyTarget
from profiles.errors import ConfigError, describe
from stages.artifacts import Checkpoint, Dataset
from stages.pruning.epi import EpiConfig, Trigger, epi_curve, settled
from stages.pruning.groups import Widths
from stages.store import Step
from stages.training.progress import say
from stages.warmup import warmup


class Watch:
    """Follows the sub-network that one target would keep, until its EPI fires."""

    def __init__(self, target: ReadyTarget, config: EpiConfig) -> None:
        self.target = target
        self.trigger: Trigger | None = None
        self.segment: Checkpoint | None = None
        self._config = config
        self._seen: list[Widths] = []

    def check(self, segment: Checkpoint, *, latest: bool) -> None:
        """Look at the trunk after a segment; `latest` says that no later check follows."""
        if self.trigger is not None:
            return
        self._seen.append(self.target.choose(segment))
        curve = epi_curve(self._seen, self._config.window)
        stable = settled(curve, self._config)
        shown = "-" if curve[-1] is None else f"{curve[-1]:.3f}"
        say(f"{self.target.profile.name}: check {len(curve)}  EPI {shown} (fires at {self._config.tau:g})")
        if stable or latest:
            self.trigger = Trigger(check=len(curve), stable=stable, curve=tuple(curve))
            self.segment = segment
            say(f"{self.target.profile.name}: branches off at check {len(curve)}" + ("" if stable else ", the latest allowed: EPI has not settled"))


def segment_stops(recipe: Recipe, images: int) -> tuple[list[int], int]:
    """Return the optimizer steps at which the trunk is checked, and the last step of the cycle.

    They depend on the recipe alone, so that every target, now or next week, meets the same segments.

    Raises:
        ConfigError: No step lies before the latest check.
    """
    per_epoch = max(images // recipe.training.batch_size, 1)
    total, checks = recipe.training.epochs * per_epoch, recipe.training.epochs * recipe.training.checks_per_epoch
    latest = int(recipe.prune.epi.latest * checks)
    stops = sorted({round(total * check / checks) for check in range(1, latest + 1)} - {0})
    if not stops:
        raise ConfigError(
            describe(
                "the training is too short for a single check",
                given=f"{total} optimizer steps, the latest check at {recipe.prune.epi.latest:.0%} of them",
                allowed="at least one step before the latest check",
                fix="raise training.epochs or prune.epi.latest, or lower training.batch_size",
            )
        )
    return stops, total


def grow_trunk(recipe: Recipe, dataset: Dataset, targets: Sequence[ReadyTarget], step: Step) -> tuple[list[Watch], Checkpoint]:
    """Train the dense network to the end of its cycle, letting every target branch off on the way.

    Returns:
        A watch per target, each with the segment that it left at, and the dense network.
    """
    watches = [Watch(target, recipe.prune.epi) for target in targets]
    checks, total = segment_stops(recipe, dataset.sizes["train"])
    segment: Checkpoint | None = None
    common: Mapping[str, object] = {"dataset": dataset, "model": recipe.model, "training": recipe.training}
    for stop in checks:
        segment = step(warmup, **common, previous=segment, stop=stop)
        for watch in watches:
            watch.check(segment, latest=stop == checks[-1])
    dense = step(warmup, **common, previous=segment, stop=total) if checks[-1] < total else segment
    assert dense is not None
    return watches, dense
