"""Stage `recover`: train a pruned network to the end of the learning-rate cycle, or as long as it needs."""

from pathlib import Path

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, build, load_network, load_training, save_tensors
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.pruning.policy import FinetuneConfig, RecoverConfig
from bonsai.stages.pruning.recovery import FINETUNE, Goal, Length, Recovery, length_of
from bonsai.stages.store.store import RESUME, stage
from bonsai.stages.training.config import DistillConfig, TrainConfig
from bonsai.stages.training.distillation import Teacher
from bonsai.stages.training.evaluation import evaluate_part
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.progress import say
from bonsai.stages.training.rates import Rate, half_cosine, stretched_rate, warmed
from bonsai.stages.training.rounds import Rounds
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
    goal: Goal | None = None,
    dense: Checkpoint | None = None,
    full: Dataset | None = None,
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
        goal: What the gates ask for; given where the length is `auto`.
        dense: The reference that the goal compares with; None without one, or where the length is fixed.
        full: The same images in the size that the dense network takes; None where that is the same, or where the length is fixed.
    """
    phase = Phase("branch", dataset, training, out_dir / RESUME)
    per_epoch, metric = phase.batches.per_epoch, phase.task.metric
    with reproducible(training):
        state = load_training(pruned, training)
        imitated = Teacher(load_network(teacher).to(training.device), distill) if teacher and distill else None
        if goal is None:
            stop, rate = branch_end(pruned.step, per_epoch, training, length, finetune)
            history = phase.train(state, pruned.history, start=pruned.step, stop=stop, rate=rate, teacher=imitated)
            save_tensors(out_dir / WEIGHTS, state.deployed.state_dict())
            return pruned.successor(out_dir, step=stop, history=history)
        reference = _validate_dense(dense, phase, full) if dense is not None else None
        asked, own = (
            goal.figure(metric, reference),
            length_of(training.epochs, pruned.step / per_epoch, cost_of(pruned, (full or dataset).image_shape), length.most),
        )
        rounds = Rounds(pruned.step, per_epoch, training, own, metric, asked, warmup=round(length.rise * own.least * per_epoch))
        history = phase.train(state, pruned.history, start=pruned.step, stop=rounds.stop, rate=rounds.rate, teacher=imitated, rounds=rounds)
    save_tensors(out_dir / WEIGHTS, rounds.weights)
    history = tuple(line for line in history if line.step <= rounds.kept)
    recovery = summarise(rounds, own, asked, history[-1].validation, training.epochs, pruned.step, per_epoch)
    say(recovery.sentence(metric))
    return pruned.successor(out_dir, step=rounds.kept, history=history, recovery=recovery)


def _validate_dense(dense: Checkpoint, phase: Phase, full: Dataset | None) -> float:
    """Return the task's metric of the dense network, on validation images of the size that it takes."""
    network = load_network(dense).to(phase.config.device)
    return phase.validate(network) if full is None else evaluate_part(network, Part(full, "validation", phase.config.device), phase.task)


def branch_end(step: int, per_epoch: int, training: TrainConfig, length: RecoverConfig, finetune: FinetuneConfig | None) -> tuple[int, Rate]:
    """Return the step at which a branch of a fixed length whose last cut was at `step` ends, and its learning rate by step."""
    if finetune is not None:
        steps = finetune.epochs * per_epoch
        return step + steps, lambda at: half_cosine(finetune.lr, at - step, steps)
    assert length.epochs != "auto"
    steps = length.epochs * per_epoch if length.epochs else training.epochs * per_epoch - step
    rate = warmed(lambda at: stretched_rate(at, step, steps, training, per_epoch), step, round(length.rise * steps))
    return step + steps, rate


def cost_of(pruned: Checkpoint, full_shape: tuple[int, ...]) -> float:
    """Return the multiply-accumulates of a pruned network over those of the dense one, which takes images of `full_shape`."""
    counted = ((pruned.image_shape, pruned.edits), (full_shape, ()))
    own, dense = (count_macs(build(pruned.model, shape, pruned.num_classes, edits), shape) for shape, edits in counted)
    return own / dense


def summarise(rounds: Rounds, length: Length, goal: float | None, reached: float, cycle: int, start: int, per_epoch: int) -> Recovery:
    """Return what a recovery took."""
    assert rounds.ended is not None
    epochs, kept = ((step - start) // per_epoch for step in (rounds.stop, rounds.kept))
    return Recovery(
        epochs=epochs,
        kept=kept,
        least=length.least,
        most=length.most,
        cost=length.cost(epochs),
        plain_cost=cycle * (1 + FINETUNE * length.share),
        goal=goal,
        reached=reached,
        ended=rounds.ended,
    )
