"""Stage `prune`: cut the chosen channels out and train the branch to the end of the learning-rate cycle."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from stages.artifacts import Checkpoint, Dataset
from stages.checkpoints import OPTIMIZER, WEIGHTS, build, load_network, load_scores, load_tensors, save_tensors, to_channels_last
from stages.pruning.groups import Kept, WidthPlan, best_channels
from stages.pruning.policy import FinetuneConfig
from stages.pruning.scores import Criterion
from stages.pruning.surgery import check_cut, cut, find_groups
from stages.store import RESUME, stage
from stages.training.config import TrainConfig
from stages.training.loop import half_cosine, learning_rate, make_optimizer, reestimate_batchnorm, reproducible
from stages.training.phase import Phase
from stages.training.resume import optimizer_tensors, restore_optimizer


@stage(version=3, tools=("torch", "torch-pruning"))
def prune(
    out_dir: Path,
    dense: Checkpoint,
    plan: WidthPlan,
    dataset: Dataset,
    training: TrainConfig,
    batchnorm_batches: int,
    criterion: Criterion,
    finetune: FinetuneConfig | None,
) -> Checkpoint:
    """Keep each group's best channels, carry the optimizer's moments over, and finish the cycle.

    Args:
        out_dir: Receives the weights.
        dense: The trunk's segment at which the branch leaves.
        plan: Channels to keep per group.
        dataset: What to train on.
        training: The cycle, which goes on where the trunk stood.
        batchnorm_batches: Training batches that BatchNorm's statistics are estimated on after the cut.
        criterion: By what each group's best channels are told.
        finetune: Training after a cut at the cycle's end; None where the cycle goes on.
    """
    kept = best_channels(load_scores(dense, criterion), plan.widths)
    phase = Phase("branch", dataset, training, out_dir / RESUME)
    with reproducible(training):
        network = load_network(dense)
        groups = find_groups(network, dense.image_shape)
        original = load_network(dense)
        cut(network, groups, kept, dense.image_shape)
        difference = check_cut(original, network, groups, kept, dense.image_shape)
        to_channels_last(network)
        optimizer = make_optimizer(network, training)
        restore_optimizer(network, optimizer, cut_moments(dense, kept))
        reestimate_batchnorm(network, phase.batches, start=dense.step, count=batchnorm_batches)
        after_cut = phase.validation_top1(network)
        stop, rate = branch_end(dense.step, phase.batches.per_epoch, training, finetune)
        history = phase.train(network, optimizer, dense.history, start=dense.step, stop=stop, rate=rate)
    save_tensors(out_dir / WEIGHTS, network.state_dict())
    save_tensors(out_dir / OPTIMIZER, optimizer_tensors(network, optimizer))
    return dense.model_copy(
        update={
            "folder": out_dir,
            "digest": "",
            "key": "",
            "kept": kept,
            "step": stop,
            "history": history,
            "metrics": {"validation_top1_after_cut": after_cut, "cut_difference": difference},
        }
    )


def branch_end(step: int, per_epoch: int, training: TrainConfig, finetune: FinetuneConfig | None) -> tuple[int, Callable[[int], float]]:
    """Return the step at which a branch that was cut at `step` ends, and its learning rate by step."""
    if finetune is None:
        return training.epochs * per_epoch, lambda at: learning_rate(at, training, per_epoch)
    steps = finetune.epochs * per_epoch
    return step + steps, lambda at: half_cosine(finetune.lr, at - step, steps)


def cut_moments(dense: Checkpoint, kept: Kept) -> dict[str, torch.Tensor]:
    """Return the optimizer's moments for the pruned network, as ``<moment>.<parameter name>``.

    A twin of the network that holds the moments as its weights is cut in the same way: whatever the surgery
    does to a parameter, it does to its moments.
    """
    stored = load_tensors(dense, OPTIMIZER)
    moments: dict[str, torch.Tensor] = {}
    for moment in {key.partition(".")[0] for key in stored}:
        twin: nn.Module = build(dense.model, dense.image_shape, dense.num_classes)
        twin.load_state_dict({name: stored[f"{moment}.{name}"] for name, _ in twin.named_parameters()}, strict=False)
        cut(twin, find_groups(twin, dense.image_shape), kept, dense.image_shape)
        moments |= {f"{moment}.{name}": parameter.detach().clone() for name, parameter in twin.named_parameters()}
    return moments
