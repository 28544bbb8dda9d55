"""Stage `recover`: train a pruned network to the end of the learning-rate cycle."""

from pathlib import Path

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, load_network, load_training, save_tensors
from bonsai.stages.pruning.policy import FinetuneConfig, RecoverConfig
from bonsai.stages.store.store import RESUME, stage
from bonsai.stages.training.config import DistillConfig, TrainConfig
from bonsai.stages.training.distillation import Teacher
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.rates import Rate, half_cosine, learning_rate
from bonsai.stages.training.state import reproducible


@stage(version=4, tools=("torch", "torchvision"), figures=Checkpoint.reached)
def recover(
    out_dir: Path,
    pruned: Checkpoint,
    dataset: Dataset,
    training: TrainConfig,
    length: RecoverConfig,
    finetune: FinetuneConfig | None,
    distill: DistillConfig | None,
    teacher: Checkpoint | None,
) -> Checkpoint:
    """Go on with the training that the last cut interrupted.

    Args:
        out_dir: Receives the weights; their average where the training keeps one.
        pruned: The network after the last cut.
        dataset: Data to train on.
        training: The cycle, which goes on where the cut stood.
        length: How long the cycle goes on.
        finetune: Training after a cut at the cycle's end; None where the cycle goes on.
        distill: How the teacher is imitated.
        teacher: The trunk's dense network; None trains on the labels alone.
    """
    phase = Phase("branch", dataset, training, out_dir / RESUME)
    stop, rate = branch_end(pruned.step, phase.batches.per_epoch, training, length, finetune)
    with reproducible(training):
        state = load_training(pruned, training)
        imitated = Teacher(load_network(teacher).to(training.device), distill) if teacher and distill else None
        history = phase.train(state, pruned.history, start=pruned.step, stop=stop, rate=rate, teacher=imitated)
    save_tensors(out_dir / WEIGHTS, state.deployed.state_dict())
    return pruned.successor(out_dir, step=stop, history=history)


def branch_end(step: int, per_epoch: int, training: TrainConfig, length: RecoverConfig, finetune: FinetuneConfig | None) -> tuple[int, Rate]:
    """Return the step at which a branch whose last cut was at `step` ends, and its learning rate by step."""
    if finetune is not None:
        steps = finetune.epochs * per_epoch
        return step + steps, lambda at: half_cosine(finetune.lr, at - step, steps)
    left = training.epochs * per_epoch - step
    steps = length.epochs * per_epoch if length.epochs else left
    return step + steps, lambda at: learning_rate(step + (at - step) * left / steps, training, per_epoch)
