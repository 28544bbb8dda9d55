"""Stage `prune`: cut the chosen channels out and train the branch to the end of the learning-rate cycle."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from stages.artifacts import Checkpoint, Dataset
from stages.checkpoints import OPTIMIZER, WEIGHTS, load_network, load_scores, load_tensors, save_tensors
from stages.pruning.groups import WidthPlan
from stages.pruning.policy import FinetuneConfig
from stages.pruning.removal import Removal
from stages.pruning.schedule import ScheduleConfig
from stages.pruning.scores import Criterion
from stages.pruning.statistics import GradientStatistics
from stages.store import RESUME, stage
from stages.training.config import TrainConfig
from stages.training.loop import half_cosine, learning_rate, make_optimizer, reestimate_batchnorm, reproducible, train_steps
from stages.training.phase import Phase
from stages.training.resume import optimizer_tensors, restore_optimizer


@stage(version=4, tools=("torch", "torch-pruning"))
def prune(
    out_dir: Path,
    dense: Checkpoint,
    plan: WidthPlan,
    dataset: Dataset,
    training: TrainConfig,
    batchnorm_batches: int,
    criterion: Criterion,
    finetune: FinetuneConfig | None,
    schedule: ScheduleConfig,
) -> Checkpoint:
    """Keep each group's best channels, carry the optimizer's moments over, and finish the cycle.

    A killed run repeats the removal, which is short, and then goes on from the last finished epoch.

    Args:
        out_dir: Receives the weights.
        dense: The trunk's segment at which the branch leaves.
        plan: Channels to keep per group.
        dataset: What to train on.
        training: The cycle, which goes on where the trunk stood.
        batchnorm_batches: Training batches that BatchNorm's statistics are estimated on after the cut.
        criterion: By what each group's best channels are told.
        schedule: Number of cuts, and the training between them.
        finetune: Training after a cut at the cycle's end; None where the cycle goes on.
    """
    phase = Phase("branch", dataset, training, out_dir / RESUME)
    stop, rate = branch_end(dense.step, phase.batches.per_epoch, training, finetune)

    def train_between(network: nn.Module, optimizer: torch.optim.Optimizer, statistics: GradientStatistics, start: int) -> None:
        end = start + schedule.iterations
        train_steps(network, optimizer, phase.batches, training, start=start, stop=end, label="removal", rate=rate, observer=statistics)

    with reproducible(training):
        network = load_network(dense)
        optimizer: torch.optim.Optimizer = make_optimizer(network, training)
        restore_optimizer(network, optimizer, load_tensors(dense, OPTIMIZER))
        removal = Removal(network, optimizer, dense.image_shape, lambda cut_network: make_optimizer(cut_network, training))
        start = removal.run(
            plan.widths, load_scores(dense, criterion), criterion, schedule, window=training.score_window, start=dense.step, train=train_between
        )
        optimizer = removal.optimizer
        reestimate_batchnorm(network, phase.batches, start=start, count=batchnorm_batches)
        after_cut = phase.validation_top1(network)
        history = phase.train(network, optimizer, dense.history, start=start, stop=stop, rate=rate)
    save_tensors(out_dir / WEIGHTS, network.state_dict())
    save_tensors(out_dir / OPTIMIZER, optimizer_tensors(network, optimizer))
    return dense.model_copy(
        update={
            "folder": out_dir,
            "digest": "",
            "key": "",
            "kept": {name: removal.kept[name] for name in plan.widths},
            "step": stop,
            "history": history,
            "metrics": {"validation_top1_after_cut": after_cut, "cut_difference": removal.difference},
        }
    )


def branch_end(step: int, per_epoch: int, training: TrainConfig, finetune: FinetuneConfig | None) -> tuple[int, Callable[[int], float]]:
    """Return the step at which a branch that was cut at `step` ends, and its learning rate by step."""
    if finetune is None:
        return training.epochs * per_epoch, lambda at: learning_rate(at, training, per_epoch)
    steps = finetune.epochs * per_epoch
    return step + steps, lambda at: half_cosine(finetune.lr, at - step, steps)
