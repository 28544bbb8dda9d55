"""A target's branch: from the segment where it leaves the trunk to a package."""

from pipeline.recipe import Recipe
from pipeline.targets import Network, ReadyTarget
from pipeline.trunk import Watch
from profiles.schema import Target
from stages.artifacts import Checkpoint, Dataset, Dialect, Engine
from stages.compile import compile as compile_engine
from stages.decisions import Decisions
from stages.export import export
from stages.lineage import trace_lineage
from stages.measure import measure
from stages.package import Package, package
from stages.prune import prune
from stages.pruning.groups import WidthPlan, Widths
from stages.quantize import quantize
from stages.recover import recover
from stages.selection.loop import Fit
from stages.store import Step


def finish_branch(recipe: Recipe, dataset: Dataset, network: Network, watch: Watch, dense: Checkpoint, step: Step) -> Package:
    """Prune at the trigger, quantise, export, build, measure and package for one target."""
    target, segment, trigger = watch.target, watch.segment, watch.trigger
    assert segment is not None and trigger is not None
    fit, cut = prune_to_fit(recipe, dataset, target, segment, step)
    distill = recipe.prune.distill
    teacher = {"trained": dense, "trigger": segment}[distill.teacher] if distill else None
    pruned = step(recover, pruned=cut, dataset=dataset, training=recipe.training, finetune=recipe.prune.policy.finetune, distill=distill, teacher=teacher)
    final = pruned
    if target.dialect != "float":
        final = step(
            quantize, pruned=pruned, dataset=dataset, training=recipe.training, config=recipe.quantize, dialect=target.dialect, weight_bits=target.weight_bits
        )

    def build(checkpoint: Checkpoint, dialect: Dialect, device: Target) -> Engine:
        graph = step(export, checkpoint=checkpoint, dataset=dataset, config=recipe.export, dialect=dialect)
        return step(compile_engine, graph=graph, target=device, info=target.info)

    engine = build(final, target.dialect, target.profile.target)
    measurement = step(
        measure,
        dense=build(dense, "float", target.float_target),
        pruned=build(pruned, "float", target.float_target),
        engine=engine,
        final=final,
        dataset=dataset,
        profile=target.profile,
        timing=recipe.timing,
        estimates=target.estimates(widths_of(cut)),
    )
    decisions = Decisions(
        recipe_name=recipe.name,
        recipe=recipe.model_dump_json(),
        trigger=trigger,
        criterion=recipe.prune.criterion,
        fit=fit,
        dense_widths=network.dense_widths,
        kept_widths=widths_of(cut),
        table_source=target.table_source,
    )
    lineage = trace_lineage(measurement, *target.evidence)
    return step(
        package,
        engine=engine,
        measurement=measurement,
        final=final,
        dataset=dataset,
        profile=target.profile,
        decisions=decisions,
        lineage=lineage,
    )


def prune_to_fit(recipe: Recipe, dataset: Dataset, target: ReadyTarget, segment: Checkpoint, step: Step) -> tuple[Fit, Checkpoint]:
    """Choose widths that fit the budget and cut down to them.

    Where the widths are chosen again between the cuts, the network that comes out is timed as the first choice was; if it is
    over the budget, the removal is repeated within a smaller one, and at last with the first choice.
    """
    fit, config = target.fit(segment), recipe.prune

    def cut(limit_ms: float | None) -> Checkpoint:
        return step(
            prune,
            dense=segment,
            plan=WidthPlan(widths=fit.widths),
            reselection=None if limit_ms is None else target.reselection(limit_ms),
            dataset=dataset,
            training=recipe.training,
            criterion=config.criterion,
            schedule=config.schedule,
            finetune=config.policy.finetune,
            batchnorm_batches=config.batchnorm_batches,
        )

    limit = fit.predicted_ms
    for _ in range(config.rounds if config.schedule.steps > 1 else 0):
        pruned = cut(limit)
        widths = widths_of(pruned)
        if widths == fit.widths or not target.info.present:
            return fit, pruned
        measured = target.time_untrained(widths)
        if measured <= fit.aim_ms:
            return fit, pruned
        limit = min(limit * fit.aim_ms / measured * 0.998, target.latency(widths) * 0.999)
    return fit, cut(None)


def widths_of(pruned: Checkpoint) -> Widths:
    """Return the channels per group that were kept."""
    return {name: len(channels) for name, channels in pruned.kept.items()}
