"""The trunk: dense training in segments, from which every target branches off when its policy fires."""

from collections.abc import Callable, Sequence
from typing import Any

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.targets import ReadyTarget
from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.errors import MomentsGone
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import has_moments
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.pruning.groups import Group
from bonsai.stages.pruning.indicator import Indicator
from bonsai.stages.pruning.policy import check_steps
from bonsai.stages.steps.train_dense import moments, train_dense
from bonsai.stages.store.manifest import read_either_manifest
from bonsai.stages.store.store import Step, load_artifact
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.progress import say


class Monitor:
    """Follows the sub-network that one target would keep, until its policy fires."""

    def __init__(self, target: ReadyTarget, config: PruneConfig) -> None:
        self.target = target
        self.trigger: Trigger | None = None
        self.segment: Checkpoint | None = None
        self._indicator = Indicator(config.policy, config.epi, config.criterion)

    def check(self, segment: Checkpoint, *, epoch: float, latest: bool) -> None:
        """Look at the trunk after a segment; `latest` says that EPI gets no later check."""
        if self.trigger is not None:
            return
        self._indicator = self._indicator.after(self.target.followed.chooser.keep(self.target.scores(segment)), epoch)
        if self._indicator.policy.name == "epi":
            say(f"{self.target.profile.name}: {self._indicator.sentence}")
        if trigger := self._indicator.trigger(latest=latest):
            self._leave(segment, trigger)

    def branch(self, segment: Checkpoint, *, epoch: float, stable: bool) -> None:
        """Leave the trunk here."""
        self._leave(segment, self._indicator.leave(epoch, stable=stable))

    def _leave(self, segment: Checkpoint, trigger: Trigger) -> None:
        self.trigger, self.segment = trigger, segment
        say(f"{self.target.profile.name}: branches off {trigger.sentence}")


def segment_stops(recipe: Recipe, images: int) -> tuple[list[int], int]:
    """Return the optimizer steps at which the trunk is checked, and the last step of the cycle.

    They depend on the recipe alone, so that every target, now or next week, meets the same segments.

    Raises:
        ConfigError: The training is so short that EPI would never have values enough to fire.
    """
    per_epoch = steps_per_epoch(recipe.training, images)
    policy, total = recipe.prune.policy, recipe.training.epochs * per_epoch
    stops = check_steps(policy, recipe.prune.epi, total=total, per_epoch=per_epoch)
    branches = {"initialisation": 0, "epoch": next((s for s in stops if s >= (policy.epoch or 0) * per_epoch - 1e-9), stops[-1])}
    removal, room = (recipe.prune.schedule.steps - 1) * recipe.prune.schedule.iterations, total - branches.get(policy.name, stops[-1])
    if (removal > room or (removal == room and recipe.prune.recover.epochs)) and not policy.finetune:
        raise ConfigError(
            describe(
                "prune.schedule does not end before the training does",
                given=f"{removal} optimizer steps of removal",
                allowed=f"at most {room}, what is left of the cycle",
                fix="lower prune.schedule.steps, its iterations, or prune.epi.latest",
            )
        )
    return [0, *stops] if policy.name == "initialisation" else stops, total


def steps_per_epoch(training: TrainConfig, images: int) -> int:
    """Return the optimizer steps of an epoch over so many training images."""
    return max(images // training.batch_size, 1)


def trunk_inputs(recipe: Recipe, dataset: Dataset, groups: Sequence[Group]) -> dict[str, Any]:
    """Return what every segment of the trunk depends on; without a regulariser not on which groups may be pruned."""
    regulariser = recipe.prune.regulariser
    regularised = tuple(group.name for group in groups) if regulariser.name != "none" else ()
    return {"dataset": dataset, "training": recipe.training, "regulariser": regulariser, "regularised": regularised}


def grow_trunk(recipe: Recipe, dataset: Dataset, initial: Checkpoint, targets: Sequence[ReadyTarget], step: Step) -> tuple[list[Monitor], Checkpoint | None]:
    """Train the dense network to the end of its cycle; every target branches off on the way.

    If the end of the cycle is not the reference, the training ends when the last target has branched off.

    Args:
        recipe: The policy, and the length of the training.
        dataset: Data to train on.
        initial: The network before any training.
        targets: The targets.
        step: Runs a stage.

    Returns:
        A monitor per target, each with the segment that it left at, and the dense network that is the reference, or None.
    """
    monitors = [Monitor(target, recipe.prune) for target in targets]
    checks, total = segment_stops(recipe, dataset.sizes["train"])
    segment, inputs = initial, trunk_inputs(recipe, dataset, targets[0].groups)
    trained, reference = recipe.training.reference == "trained", initial if recipe.training.reference == "given" else None
    for stop in checks:
        segment = grow_segment(inputs, segment, stop, step)
        for monitor in monitors:
            monitor.check(segment, epoch=stop * recipe.training.epochs / total, latest=stop == checks[-1])
        if not trained and all(monitor.trigger is not None for monitor in monitors):
            return monitors, reference
    dense = grow_segment(inputs, segment, total, step) if checks[-1] < total else segment
    for monitor in monitors:
        if monitor.trigger is None:  # the policy `trained`
            monitor.branch(dense, epoch=recipe.training.epochs, stable=True)
    return monitors, dense if trained else reference


def train_to_end(recipe: Recipe, dataset: Dataset, initial: Checkpoint, step: Step) -> Checkpoint:
    """Train the dense network to the end of its cycle for no target, in the segments that targets would meet.

    Args:
        recipe: One without a regulariser, which would have to know the network's groups.
        dataset: Data to train on.
        initial: The network before any training.
        step: Runs a stage.
    """
    assert recipe.prune.regulariser.name == "none", "tests/unit/pipeline/recipes/test_recipe.py checks the recipes that others start from"
    checks, total = segment_stops(recipe, dataset.sizes["train"])
    segment, inputs = initial, trunk_inputs(recipe, dataset, ())
    for stop in dict.fromkeys((*checks, total)):
        segment = grow_segment(inputs, segment, stop, step)
    return segment


def grow_segment(inputs: dict[str, Any], previous: Checkpoint, stop: int, step: Step) -> Checkpoint:
    """Train the trunk on to a step; where the moments of the segment before are gone, they are trained again first.

    Args:
        inputs: Result of `trunk_inputs`.
        previous: The segment before, or the network before any training.
        stop: Optimizer step.
        step: Runs a stage.
    """
    return with_moments(inputs, previous, step, lambda: step(train_dense, **inputs, previous=previous, stop=stop))


def with_moments(inputs: dict[str, Any], segment: Checkpoint, step: Step, go_on: Callable[[], Checkpoint]) -> Checkpoint:
    """Continue the training from a segment. If its moments were freed, train again from the nearest earlier segment that still has them.

    Args:
        inputs: Result of `trunk_inputs`.
        segment: Segment from which the training continues.
        step: Runs a stage.
        go_on: Runs the stage that goes on.
    """
    try:
        return go_on()
    except MomentsGone:
        missing = [segment]
    while (earlier := _previous(missing[0])).start is None and not has_moments(earlier):
        missing.insert(0, earlier)
    begin = "from its beginning" if earlier.start is not None else f"from step {earlier.step}, the nearest check that has its own"
    say(f"trunk: the moments of step {segment.step} are gone; training again {begin}")
    for later in missing:
        step(moments, of=later, **inputs, previous=earlier, stop=later.step)
        earlier = later
    return go_on()


def _previous(segment: Checkpoint) -> Checkpoint:
    """Return the segment of the trunk before another one, or the network before any training."""
    return load_artifact(Checkpoint, segment.folder.parent.parent / read_either_manifest(segment.folder).inputs["previous"]["artifact"])
