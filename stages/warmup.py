"""Stage `warmup`: one segment of the trunk, the dense network's training."""

from functools import lru_cache
from pathlib import Path

from stages.artifacts import Checkpoint, Dataset
from stages.checkpoints import PENALTY, STATISTICS, build, load_tensors, load_training, save_scores, save_tensors, save_training
from stages.models.config import ModelConfig
from stages.models.registry import build_network
from stages.pruning.groups import Group
from stages.pruning.regularisers import RegulariserConfig, make_regulariser
from stages.pruning.scores import weight_scores
from stages.pruning.statistics import BatchStatistics
from stages.pruning.surgery import find_groups
from stages.store import RESUME, stage
from stages.training.config import TrainConfig
from stages.training.phase import Phase
from stages.training.state import TrainState, reproducible


@stage(version=5, tools=("torch", "torch-pruning"))
def warmup(
    out_dir: Path,
    dataset: Dataset,
    model: ModelConfig,
    training: TrainConfig,
    regulariser: RegulariserConfig,
    regularised: tuple[str, ...],
    previous: Checkpoint | None,
    stop: int,
) -> Checkpoint:
    """Train the dense network up to optimizer step `stop` and score its channels by every criterion.

    The trunk does not depend on the criterion that a target prunes by, so that all share it.

    Args:
        out_dir: Receives weights, optimizer moments and scores.
        dataset: What to train on.
        model: The network.
        training: The learning-rate cycle.
        regulariser: What pulls whole channels towards zero meanwhile.
        regularised: Names of the groups that it pulls.
        previous: The segment before, or None for the first.
        stop: Step of the cycle at which this segment ends.
    """
    shape, classes = dataset.image_shape, len(dataset.classes)
    phase = Phase("trunk", dataset, training, out_dir / RESUME)
    with reproducible(training):
        state = load_training(previous, training) if previous else TrainState(build(model, shape, classes), training)
        groups = _dense_groups(model.identity(), model.model_dump_json(), shape, classes)
        statistics = BatchStatistics(state.network, groups, training.score_window)
        penalty = make_regulariser(regulariser, state.network, tuple(g for g in groups if g.name in regularised))
        if previous:
            statistics.restore(load_tensors(previous, STATISTICS))
        if previous and penalty:
            penalty.restore(load_tensors(previous, PENALTY))
        start = previous.step if previous else 0
        if stop == 0:  # before any training there are no gradients to see in passing
            statistics.observe_untrained(phase.batches, batches_seen=training.score_window)
        history = phase.train(state, previous.history if previous else (), start=start, stop=stop, observer=statistics, penalty=penalty)
    save_training(out_dir, state)
    save_tensors(out_dir / STATISTICS, statistics.state())
    if penalty:
        save_tensors(out_dir / PENALTY, penalty.state())
    save_scores(out_dir, weight_scores(state.network.cpu(), groups) | statistics.scores())
    return Checkpoint(folder=out_dir, model=model, image_shape=shape, num_classes=classes, step=stop, history=history)


@lru_cache(maxsize=1)
def _dense_groups(identity: str, model: str, image_shape: tuple[int, int, int], num_classes: int) -> tuple[Group, ...]:
    """Return the dense network's groups; kept, since every segment of a trunk trains the same network."""
    return find_groups(build_network(ModelConfig.model_validate_json(model), image_shape, num_classes), image_shape)
