"""Stage `warmup`: one segment of the trunk, the dense network's training."""

from pathlib import Path

from stages.artifacts import Checkpoint, Dataset
from stages.checkpoints import OPTIMIZER, STATISTICS, WEIGHTS, build, load_network, load_tensors, save_scores, save_tensors
from stages.models.config import ModelConfig
from stages.pruning.scores import weight_scores
from stages.pruning.statistics import GradientStatistics
from stages.pruning.surgery import find_groups
from stages.store import RESUME, stage
from stages.training.config import TrainConfig
from stages.training.loop import make_optimizer, reproducible
from stages.training.phase import Phase
from stages.training.resume import optimizer_tensors, restore_optimizer


@stage(version=2, tools=("torch", "torch-pruning"))
def warmup(out_dir: Path, dataset: Dataset, model: ModelConfig, training: TrainConfig, previous: Checkpoint | None, stop: int) -> Checkpoint:
    """Train the dense network up to optimizer step `stop` and score its channels by every criterion.

    The trunk does not depend on the criterion that a target prunes by, so that all share it.

    Args:
        out_dir: Receives weights, optimizer moments and scores.
        dataset: What to train on.
        model: The network.
        training: The learning-rate cycle.
        previous: The segment before, or None for the first.
        stop: Step of the cycle at which this segment ends.
    """
    shape, classes = dataset.image_shape, len(dataset.classes)
    phase = Phase("trunk", dataset, training, out_dir / RESUME)
    with reproducible(training):
        network = load_network(previous) if previous else build(model, shape, classes)
        optimizer = make_optimizer(network, training)
        if previous:
            restore_optimizer(network, optimizer, load_tensors(previous, OPTIMIZER))
        groups = find_groups(network, shape)
        statistics = GradientStatistics(network, groups, training.score_window)
        if previous:
            statistics.restore(load_tensors(previous, STATISTICS))
        start = previous.step if previous else 0
        if stop == 0:  # before any training there are no gradients to see in passing
            statistics.observe_untrained(phase.batches, batches_seen=training.score_window)
        history = phase.train(network, optimizer, previous.history if previous else (), start=start, stop=stop, observer=statistics)
        scores = weight_scores(network, groups) | statistics.scores()
    save_tensors(out_dir / WEIGHTS, network.state_dict())
    save_tensors(out_dir / OPTIMIZER, optimizer_tensors(network, optimizer))
    save_tensors(out_dir / STATISTICS, statistics.state())
    save_scores(out_dir, scores)
    return Checkpoint(folder=out_dir, model=model, image_shape=shape, num_classes=classes, step=stop, history=history)
