"""One target's branch: prune at the trigger, train on, quantise, build and measure the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.final_timing import time_finished, time_points
from bonsai.pipeline.run.inspecting import Network
from bonsai.pipeline.run.other_limits import fit_within, most_strained
from bonsai.pipeline.run.resolutions import Sized, choose_size
from bonsai.pipeline.run.targets import ReadyTarget
from bonsai.pipeline.run.trunk import Monitor, steps_per_epoch, trunk_inputs, with_moments
from bonsai.profiles.schema import Precision
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.runtimes import graph_form
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.delivery.decisions import Attempt, Decisions, Tried
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.measurement.budget_gates import is_of_budget
from bonsai.stages.measurement.measurements import Accuracy, Challenge, Measurement
from bonsai.stages.networks.checkpoint import Checkpoint, History
from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.pruning.groups import WidthPlan, Widths, blocks_of
from bonsai.stages.pruning.recovery import Goal
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.selection.attempts import ATTEMPTS, rank, tighter, uses_budget
from bonsai.stages.selection.loop import Fit
from bonsai.stages.selection.resolution_records import Resolution
from bonsai.stages.steps.compile import compile as compile_engine
from bonsai.stages.steps.export import export
from bonsai.stages.steps.fuse import fuse
from bonsai.stages.steps.measure import measure
from bonsai.stages.steps.package import package
from bonsai.stages.steps.prune import prune
from bonsai.stages.steps.quantize import quantize
from bonsai.stages.steps.recover import recover
from bonsai.stages.steps.weigh_blocks import weigh_blocks
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.lineage import trace_lineage
from bonsai.stages.store.store import Step
from bonsai.stages.training.tracking import scope


@dataclass(frozen=True)
class Branch:
    """The finished engines of one target, one per precision, the dense engine, and everything they were made from. None has seen the test images.

    Attributes:
        dataset: Images in the size that the engines take.
        resolutions: The sizes of images among which that one was chosen; empty where there is no choice.
        reference: The dense engine. The budget may be a fraction of its latency. It is untrained if there is no reference.
    """

    target: ReadyTarget
    trigger: Trigger
    fit: Fit
    cut: Checkpoint
    pruned: Checkpoint
    quantised: Checkpoint | None
    engines: tuple[Engine, ...]
    reference: Engine
    measurement: Measurement
    dataset: Dataset
    resolutions: tuple[Resolution, ...]

    @property
    def engine(self) -> Engine:
        """The engine that is shipped."""
        return next(engine for engine in self.engines if engine.precision == self.measurement.shipped)

    @property
    def final(self) -> Checkpoint:
        """The network that the shipped engine was exported from."""
        return self.quantised if self.quantised is not None and self.measurement.shipped == "int8" else self.pruned

    @property
    def widths(self) -> Widths:
        """Channels per group that were kept."""
        return widths_of(self.cut)

    @cached_property
    def used(self) -> float:
        """The engine's latency over the budget; an estimate where the device is not here."""
        gate = self.measurement.gates[0]
        return gate.found / gate.limit

    @cached_property
    def strained(self) -> float:
        """The largest figure of the budget over its limit: of latency, p99, memory, size and energy, those that are limited, here and at every point."""
        return max(gate.found / gate.limit for gate in self.measurement.gates if is_of_budget(gate))

    @property
    def validation(self) -> Accuracy:
        """Accuracy of the shipped engine on the validation images, by which branches are compared."""
        return self.measurement.shipped_row.judged

    @property
    def passed(self) -> bool:
        """Whether all gates are met on the validation images."""
        return all(gate.passed for gate in self.measurement.gates)

    def about_full(self, full: Dataset) -> dict[str, Dataset]:
        """Return the input that gives the dense engine images of the full size; nothing if all engines take these."""
        return about_full(full, self.dataset)

    @property
    def attempt(self) -> Attempt:
        """The branch as the report shows it."""
        return Attempt(widths=self.widths, predicted_ms=self.target.latency(self.widths), engine_ms=self.used * self.target.limit_ms, rounds=self.fit.rounds)


def grow_branch(recipe: Recipe, dataset: Dataset, monitor: Monitor, dense: Checkpoint | None, step: Step) -> tuple[Branch, tuple[Attempt, ...]]:
    """Prune at the trigger, quantise, export, build and measure for one target.

    If the finished engine is over the budget, or leaves more than `WASTE` of the aim unused, its measured latency corrects the prediction. If its p99, memory,
    size or energy, or any figure at a point, is further over its limit than the latency, the next network must be faster by that ratio: fewer channels lower
    all of them.
    The widths are then chosen again from the scores at the trigger, and a second branch is trained.

    Returns:
        The branch that is kept, and all branches that were trained.
    """
    segment = monitor.segment
    assert segment is not None
    weighed = {"dataset": dataset, "training": recipe.training, "criterion": recipe.prune.criterion}
    losses = step(weigh_blocks, segment=segment, **weighed) if blocks_of(monitor.target.groups) else None
    sized = choose_size(recipe, dataset, monitor.target, segment, losses, step)
    target = sized.target
    grown = list[Branch]()

    def choose(limit_ms: float, correction: float = 1.0) -> Fit:
        return fit_within(target, lambda within_ms: target.fit(segment, losses, correction=correction, limit_ms=within_ms), limit_ms)

    def grow(fit: Fit) -> None:
        tries = f"/attempt-{len(grown) + 1}" if grown else ""
        with scope(f"{target.profile.name}/{target.profile.target.precision}{tries}"):
            grown.append(_grow(recipe, dataset, monitor, sized, dense, fit, step))

    grow(choose(target.limit_ms))
    asked = {"margin": recipe.prune.margin, "tolerance": recipe.prune.tolerance}
    while target.info.present and len(grown) < ATTEMPTS and not uses_budget(grown[-1].strained, **asked):
        latest = grown[-1]
        if latest.strained > max(latest.used, 1):
            fit = choose(target.limit_ms * latest.used / latest.strained)
        else:
            fit = choose(target.limit_ms, latest.strained * target.limit_ms / target.latency(latest.widths))
        if any(fit.widths == earlier.fit.widths for earlier in grown):
            break
        grow(fit)
    kept = min(grown, key=lambda branch: rank(branch.passed, branch.strained))
    return kept, tuple(branch.attempt for branch in grown)


def pack(
    recipe: Recipe,
    dataset: Dataset,
    network: Network,
    dense: Checkpoint | None,
    kept: Branch,
    assessed: Measurement,
    challenged: Challenge | None,
    attempts: tuple[Attempt, ...],
    tried: tuple[Tried, ...],
    considered: Sequence[Artifact],
    step: Step,
    *,
    remeasure: bool = False,
) -> Package:
    """Time the engine of a branch again for the verdict, and write its package.

    The report also has the verdict on the test images and the other precisions that were tried. The package's lineage includes the artifacts
    in `considered`, because the choice depends on them. With `remeasure`, an earlier verdict on the latency is not reused.
    """
    finished = (recipe.timing, kept.target, kept.engine, kept.reference, kept.measurement, step)
    timing, points = time_finished(*finished, remeasure=remeasure), time_points(*finished, remeasure=remeasure)
    decisions = Decisions(
        recipe_name=recipe.name,
        recipe=recipe.model_dump_json(),
        trigger=kept.trigger,
        cuts=_cuts(recipe.prune.schedule, kept.trigger, steps_per_epoch(recipe.training, dataset.sizes["train"])),
        criterion=recipe.prune.criterion,
        fit=kept.fit,
        attempts=attempts,
        tried=tried,
        dense_widths=network.dense_widths,
        kept_widths=kept.widths,
        table_source=kept.target.table_source,
        resolutions=kept.resolutions,
        forecast=kept.target.forecast(kept.widths),
        dense_history=dense_curve(dense, kept.final),
        dense_ms=kept.target.forecast_dense(),
        recovery=kept.pruned.recovery,
        positions={group.name: group.positions for group in network.groups if group.positions > 1},
    )
    return step(
        package,
        engine=kept.engine,
        measurement=assessed,
        challenge=challenged,
        timing=timing,
        final=kept.final,
        dataset=kept.dataset,
        profile=kept.target.profile,
        decisions=decisions,
        lineage=trace_lineage(assessed, *[artifact for artifact in (timing, *points, challenged) if artifact is not None], *considered),
        config=recipe.package,
        **({"points": points} if points else {}),  # without points a package keeps its key
    )


def dense_curve(reference: Checkpoint | None, final: Checkpoint) -> tuple[History, ...]:
    """Return the learning curve of the dense network: that of a reference that was trained, or else up to where the branch left."""
    return reference.history if reference is not None and reference.history else tuple(line for line in final.history if line.phase == "trunk")


def _cuts(schedule: ScheduleConfig, trigger: Trigger, per_epoch: int) -> tuple[float, ...]:
    """Return the epochs at which channels were removed."""
    return tuple(trigger.epoch + place * schedule.iterations / per_epoch for place in range(schedule.steps))


def _grow(recipe: Recipe, full: Dataset, monitor: Monitor, sized: Sized, dense: Checkpoint | None, fit: Fit, step: Step) -> Branch:
    segment, trigger = monitor.segment, monitor.trigger
    assert segment is not None and trigger is not None
    target, dataset, resolutions = sized
    whole = about_full(full, dataset)
    cut = prune_to_fit(recipe, full, dataset, target, segment, fit, step)
    distill = recipe.prune.distill
    teacher = {"trained": dense, "trigger": segment}[distill.teacher] if distill else None
    length = {"length": recipe.prune.recover, "finetune": recipe.prune.policy.finetune, **_goal(recipe, target, dense, whole)}
    trained = step(recover, pruned=cut, dataset=dataset, training=recipe.training, **length, distill=distill, teacher=teacher)
    pruned = _deployed(trained, dataset, target.network, step)
    quantised = None
    if target.profile.target.precision == "int8":
        form = {"dialect": graph_form(target.profile.target).dialect, "weight_bits": recipe.quantize.weight_bits or target.weight_bits}
        quantised = step(quantize, pruned=pruned, dataset=dataset, training=recipe.training, config=recipe.quantize, **form)

    def build(checkpoint: Checkpoint, precision: Precision, images: Dataset) -> Engine:
        device = target.profile.target.at(precision)
        graph = step(export, checkpoint=checkpoint, dataset=images, config=recipe.export, batch=recipe.export.batch_of(device), **graph_form(device)._asdict())
        return step(compile_engine, graph=graph, target=device, info=target.info)

    at = target.profile.target.reference
    reference = target.build_untrained() if dense is None else build(_deployed(dense, full, target.network, step), at, full)
    engines = tuple(build(quantised if precision == "int8" and quantised else pruned, precision, dataset) for precision in target.profile.target.candidates)
    measurement = step(
        measure,
        dense=reference,
        candidates=engines,
        quantised=quantised,
        dataset=dataset,
        profile=target.profile.alone,
        timing=recipe.timing,
        estimates=target.estimates(widths_of(cut)),
        **about_reference(dense),
        **whole,
    )
    return Branch(target, trigger, fit, cut, pruned, quantised, engines, reference, measurement, dataset, resolutions)


def _deployed(trained: Checkpoint, dataset: Dataset, network: Network, step: Step) -> Checkpoint:
    """Return a trained network as it is quantised and exported: with its branches fused, where it has some."""
    return step(fuse, trained=trained, dataset=dataset) if network.fused else trained


def _goal(recipe: Recipe, target: ReadyTarget, dense: Checkpoint | None, full: dict[str, Dataset]) -> dict[str, Goal | Checkpoint | Dataset | None]:
    """Return what a recovery of a length of its own is judged by; nothing if its length is fixed, since it is not judged then."""
    gates = target.profile.gates
    own = recipe.prune.recover.epochs == "auto"
    return {"goal": Goal(max_drop=gates.max_drop, min_metric=gates.min_metric), "dense": dense, **full} if own else {}


def about_reference(dense: Checkpoint | None) -> dict[str, bool]:
    """Return the input that tells `measure` and `assess` that there is no reference; nothing if there is one, so that older artifacts keep their keys."""
    return {} if dense is not None else {"with_reference": False}


def about_full(full: Dataset, dataset: Dataset) -> dict[str, Dataset]:
    """Return the input that gives the dense network images of the full size; nothing if the pruned one takes these too, so that artifacts keep their keys."""
    return {} if dataset.image_shape == full.image_shape else {"full": full}


def prune_to_fit(recipe: Recipe, full: Dataset, dataset: Dataset, target: ReadyTarget, segment: Checkpoint, fit: Fit, step: Step) -> Checkpoint:
    """Cut the network to the widths of a fit.

    The trunk was trained on the images of `full`; those of `dataset` are as large or smaller.

    A schedule of several cuts chooses the widths again between the cuts. The final widths are then timed on an untrained network, as the
    first choice was. If they are over a budget, all cuts are repeated with a smaller budget, and at last with the widths of the first choice.
    """
    config = recipe.prune

    def cut(limit_ms: float | None) -> Checkpoint:
        inputs = {
            "plan": WidthPlan(widths=fit.widths),
            "reselection": None if limit_ms is None else target.chooser.reselection(limit_ms),
            "dataset": dataset,
            "training": recipe.training,
            "criterion": config.criterion,
            "schedule": config.schedule,
            "finetune": config.policy.finetune,
            "batchnorm_batches": config.batchnorm_batches,
        }
        return with_moments(trunk_inputs(recipe, full, target.groups), segment, step, lambda: step(prune, dense=segment, **inputs))

    limit = fit.predicted_ms
    for _ in range(config.rounds if config.schedule.steps > 1 else 0):
        pruned = cut(limit)
        widths = widths_of(pruned)
        if widths == fit.widths or not target.info.present:
            return pruned
        measured = max(target.time_untrained(widths).upper_ms, most_strained(target, widths)[0] * fit.aim_ms)
        if measured <= fit.aim_ms:
            return pruned
        limit = tighter(limit, fit, measured_ms=measured, predicted_ms=target.latency(widths))
    return cut(None)


def widths_of(pruned: Checkpoint) -> Widths:
    """Return the channels per group that were kept."""
    return {name: len(channels) for name, channels in pruned.kept.items()}
