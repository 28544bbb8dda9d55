"""Stage `train_dense`: one segment of the trunk, the dense network's training. Stage `moments` repeats one for what was not kept of it."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.checkpoint import Checkpoint, History, Moments
from bonsai.stages.networks.checkpoints import (
    PENALTY,
    STATISTICS,
    WEIGHTS,
    load_moments,
    load_tensors,
    load_training,
    save_moments,
    save_scores,
    save_segment,
)
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network
from bonsai.stages.pruning.config import RegulariserConfig
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import Group
from bonsai.stages.pruning.pruner import Pruner
from bonsai.stages.pruning.regularisers import make_regulariser
from bonsai.stages.pruning.scores import weight_scores
from bonsai.stages.store.artifact import MOMENTS
from bonsai.stages.store.store import RESUME, stage
from bonsai.stages.tasks.registry import learning_of
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.loop import Penalty
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.progress import say
from bonsai.stages.training.state import TrainState, reproducible


@stage(version=10, tools=("torch", "torchvision", "torch-pruning"), figures=Checkpoint.reached)
def train_dense(
    out_dir: Path,
    dataset: Dataset,
    training: TrainConfig,
    regulariser: RegulariserConfig,
    regularised: tuple[str, ...],
    previous: Checkpoint,
    stop: int,
) -> Checkpoint:
    """Train the dense network up to optimizer step `stop` and score its channels by every criterion.

    The trunk does not depend on the criterion that a target prunes by, so that all share it.

    Args:
        out_dir: Receives weights and scores, and the optimizer's moments as an artifact of their own.
        dataset: Data to train on.
        training: The learning-rate cycle.
        regulariser: Penalty that pulls whole channels towards zero.
        regularised: Names of the groups that it pulls.
        previous: The segment before, or the network before any training.
        stop: Step of the cycle at which this segment ends.

    Raises:
        MomentsGone: The moments of the segment before were freed.
    """
    segment = _train(out_dir, dataset, training, regulariser, regularised, previous, stop)
    save_segment(out_dir, segment.state)
    segment.save_moments(out_dir / MOMENTS)
    save_scores(out_dir, weight_scores(segment.state.network.cpu(), segment.pruner.groups) | segment.pruner.statistics.scores())
    return previous.successor(out_dir, start=None, step=stop, history=segment.history)


@stage(version=3, beside="of")
def moments(
    out_dir: Path,
    of: Checkpoint,
    dataset: Dataset,
    training: TrainConfig,
    regulariser: RegulariserConfig,
    regularised: tuple[str, ...],
    previous: Checkpoint,
    stop: int,
) -> Moments:
    """Train a segment of the trunk again for its moments alone, which were freed or are damaged.

    Args:
        out_dir: Receives the moments.
        of: The segment.
        dataset: As for `train_dense`, like all that follows.
        training: The learning-rate cycle.
        regulariser: Penalty that pulls whole channels towards zero.
        regularised: Names of the groups that it pulls.
        previous: The segment before, with its moments, or the network before any training.
        stop: Step at which the segment ends.
    """
    segment = _train(out_dir, dataset, training, regulariser, regularised, previous, stop)
    segment.save_moments(out_dir)
    weights, kept = segment.state.network.cpu().state_dict(), load_tensors(of, WEIGHTS)
    if any(not torch.equal(value, kept[name]) for name, value in weights.items()):
        say(f"{of.folder.parent.name}/{of.key}: trained again, the weights are not the same to the bit; the moments belong to weights that differ a little")
    return Moments(folder=out_dir)


class _Segment(NamedTuple):
    """A segment of the trunk, trained.

    Attributes:
        state: The training at its end.
        pruner: Has the network's groups, and statistics of their channels from the training steps.
        penalty: The regulariser; None where there is none.
        history: The learning curve.
    """

    state: TrainState
    pruner: Pruner
    penalty: Penalty | None
    history: tuple[History, ...]

    def save_moments(self, folder: Path) -> None:
        """Write what a training that goes on needs beside weights and average."""
        folder.mkdir(exist_ok=True)
        save_moments(folder, self.state, self.pruner.state(), self.penalty.state() if self.penalty else None)


def _train(
    out_dir: Path,
    dataset: Dataset,
    training: TrainConfig,
    regulariser: RegulariserConfig,
    regularised: tuple[str, ...],
    previous: Checkpoint,
    stop: int,
) -> _Segment:
    phase, model, shape = Phase("trunk", dataset, training, out_dir / RESUME), previous.model, previous.image_shape
    with reproducible(training):
        state = load_training(previous, training)
        groups = _dense_groups(model.identity(), model.model_dump_json(), shape, previous.num_classes)
        pruner = Pruner(state.network, state.optimizer, shape, groups=groups, window=training.score_window)
        penalty = make_regulariser(regulariser, state.network, tuple(g for g in groups if g.name in regularised))
        if previous.start is None:
            pruner.restore(load_moments(previous, STATISTICS))
            if penalty:
                penalty.restore(load_moments(previous, PENALTY))
        if stop == 0:  # before any training there are no gradients to see in passing
            plain = learning_of(dataset.task, phase.config.model_copy(update={"label_smoothing": 0.0}))  # what shows the channels is not smoothed
            pruner.statistics.observe_untrained(phase.batches, plain, batches_seen=training.score_window)
        history = phase.train(state, previous.history, start=previous.step, stop=stop, observer=pruner, penalty=penalty)
    return _Segment(state, pruner, penalty, history)


@lru_cache(maxsize=1)
def _dense_groups(identity: str, model: str, image_shape: tuple[int, ...], num_classes: int) -> tuple[Group, ...]:
    """Return the dense network's groups; kept, since every segment of a trunk trains the same network."""
    return find_groups(build_network(ModelConfig.model_validate_json(model), image_shape, num_classes), image_shape)
