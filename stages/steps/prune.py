"""Stage `prune`: leave the trunk and cut the chosen channels out, while the training goes on."""

from pathlib import Path

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import STATISTICS, load_moments, load_scores, load_training, save_training
from bonsai.stages.pruning.blocks import groups_with_blocks
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.pruning.policy import FinetuneConfig
from bonsai.stages.pruning.pruner import Pruner
from bonsai.stages.pruning.removal import Removal
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.selection.reselection import Reselection
from bonsai.stages.store.store import RESUME, stage
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.evaluation import reestimate_batchnorm
from bonsai.stages.training.loop import train_steps
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.progress import report
from bonsai.stages.training.state import TrainState, reproducible


def figures_of(pruned: Checkpoint) -> str:
    """Return what is left, in a few words."""
    without = f", without {', '.join(pruned.dropped)}" if pruned.dropped else ""
    return f"{sum(map(len, pruned.kept.values()))} channels kept in {len(pruned.kept)} groups{without}"


@stage(version=11, tools=("torch", "torchvision", "torch-pruning"), figures=figures_of)
def prune(
    out_dir: Path,
    dense: Checkpoint,
    plan: WidthPlan,
    reselection: Reselection | None,
    dataset: Dataset,
    training: TrainConfig,
    criterion: Criterion,
    schedule: ScheduleConfig,
    finetune: FinetuneConfig | None,
    batchnorm_batches: int,
) -> Checkpoint:
    """Keep each group's best channels and carry the optimizer's moments over, which lie beside the segment.

    Args:
        out_dir: Receives weights and optimizer moments.
        dense: The trunk's segment at which the branch leaves.
        plan: Channels to keep per group, as chosen at the trigger.
        reselection: Chooses them again before each later cut; None keeps to the plan.
        dataset: Data to train on between the cuts; the branch goes on with images of its size.
        training: The cycle, which goes on where the trunk stood.
        criterion: Criterion that ranks the channels of each group.
        schedule: Number of cuts, and the training between them.
        finetune: Given where the cycle has ended: its learning rate is then that of the training between the cuts.
        batchnorm_batches: Training batches that BatchNorm's statistics are estimated on after the last cut.

    Raises:
        MomentsGone: The segment's moments were freed.
    """
    phase = Phase("branch", dataset, training, out_dir / RESUME)
    rate = (lambda _: finetune.lr) if finetune else phase.rate
    whole = (dense.step, dense.step + (schedule.steps - 1) * schedule.iterations)

    def train_between(state: TrainState, pruner: Pruner, start: int) -> None:
        stop = start + schedule.iterations
        train_steps(state, phase.batches, phase.learning, start=start, stop=stop, label="removal", rate=rate, observer=pruner, span=whole)
        report("removal", done=stop, total=whole[1], first=whole[0], unit="step")

    with reproducible(training):
        state = load_training(dense, training)
        groups = None if all(plan.widths.values()) else groups_with_blocks(state.network, dataset.image_shape)
        removal = Removal(state, dataset.image_shape, criterion, schedule, training.score_window, groups)
        stop = removal.run(
            plan.widths,
            load_scores(dense, criterion),
            choose=reselection.choose if reselection else None,
            start=dense.step,
            train=train_between,
            observed=load_moments(dense, STATISTICS),
            resume=out_dir / RESUME,
        )
        for network in {removal.state.network, removal.state.deployed}:
            reestimate_batchnorm(network, phase.batches, start=stop, count=batchnorm_batches)
        after_cut = phase.validate(removal.state.deployed)
    save_training(out_dir, removal.state)
    metrics = {
        f"validation_{phase.task.metric.name}_after_cut": after_cut,
        "cut_difference": removal.pruner.difference,
        "returned_channels": float(removal.returned),
    }
    kept = {name: removal.kept[name] for name in plan.widths}
    found = {"image_shape": dataset.image_shape, "edits": (*dense.edits, removal.pruner.edit), "kept": kept}
    return dense.successor(out_dir, **found, step=stop, metrics=metrics)
