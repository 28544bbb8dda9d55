"""The way of the data, written once: from a recipe and its targets to packages.

    compress("resnet-edge", ["local-cpu"])

`step` decides whether a stage is a plain call (`Store.run`) or a Prefect task (`pipeline/tasks.py`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.publish import publish
from pipeline.recipe import Recipe, load_recipe
from pipeline.targets import Network, ReadyTarget, inspect_network
from pipeline.trunk import Watch, grow_trunk, segment_stops
from profiles.errors import ConfigError, describe
from profiles.loader import load_profile
from profiles.schema import HardwareProfile, Target
from stages.artifacts import Checkpoint, Dataset, Dialect, Engine
from stages.backends.registry import check_target
from stages.compile import compile as compile_engine
from stages.data.registry import source_digest
from stages.decisions import Decisions
from stages.export import export
from stages.lineage import trace_lineage
from stages.measure import measure
from stages.package import Package, package
from stages.prepare import prepare
from stages.prune import prune
from stages.pruning.groups import WidthPlan
from stages.quantize import quantize
from stages.store import Step, Store, require_writable_folder

DEFAULT_STORE = Path("artifacts")


def compress(
    recipe: str,
    profile: str | Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    store: Path = DEFAULT_STORE,
    out: Path | None = None,
    step: Step | None = None,
) -> tuple[Package, ...]:
    """Compress a recipe's network for one or more targets, sharing one trunk.

    Args:
        recipe: Name of a shipped recipe, or path of a recipe file.
        profile: One profile or several, by name or path; the recipe's own if None.
        overrides: Dotted keys laid over the recipe, or with ``profile.`` in front over every profile:
            ``{"quantize.epochs": 2, "profile.budget.latency": 0.3}``.
        store: Folder of the artifacts.
        out: Folder of the packages; ``<store>/packages`` if None.
        step: Runs one stage; a plain call by default.

    Returns:
        A package per profile. Whether the gates are met stands in its `gates`.

    Raises:
        BonsaiError: With a message for the user; its `exit_code` is that of the command line.
    """
    loaded, profiles = load(recipe, profile, overrides)
    for target in profiles:
        check_target(target.target)
    require_writable_folder(store, "--store")
    require_writable_folder(out or store / "packages", "--out")
    run = step or Store(store).run
    packages = grow(loaded, profiles, run)
    for finished in packages:
        publish(finished, out or store / "packages")
    return packages


def load(recipe: str, profile: str | Sequence[str] | None, overrides: Mapping[str, Any] | None) -> tuple[Recipe, list[HardwareProfile]]:
    """Load recipe and profiles with their overrides.

    Raises:
        ConfigError: One of them does not exist, or is not valid.
    """
    overrides = overrides or {}
    prefix = "profile."
    for_profiles = {key.removeprefix(prefix): value for key, value in overrides.items() if key.startswith(prefix)}
    loaded = load_recipe(recipe, {key: value for key, value in overrides.items() if not key.startswith(prefix)})
    names = [profile] if isinstance(profile, str) else list(dict.fromkeys(profile or [loaded.profile]))
    profiles = [load_profile(name, for_profiles) for name in names]
    found = [profile.name for profile in profiles]
    if len(set(found)) < len(found):
        raise ConfigError(
            describe(
                "two profiles have one name, and their packages would have too",
                given=", ".join(found),
                allowed="distinct names",
                fix="give your profile a `name:` of its own",
            )
        )
    return loaded, profiles


def grow(recipe: Recipe, profiles: Sequence[HardwareProfile], step: Step) -> tuple[Package, ...]:
    """Run all stages for all targets: the trunk once, then a branch per target."""
    dataset = step(prepare, data=recipe.data, content=source_digest(recipe.data))
    segment_stops(recipe, dataset.sizes["train"])  # refuses a training that is too short before anything is timed
    network = inspect_network(recipe, dataset.image_shape, len(dataset.classes))
    targets = [ReadyTarget(recipe, profile, network, step) for profile in profiles]
    watches, dense = grow_trunk(recipe, dataset, targets, step)
    return tuple(finish_branch(recipe, dataset, network, watch, dense, step) for watch in watches)


def finish_branch(recipe: Recipe, dataset: Dataset, network: Network, watch: Watch, dense: Checkpoint, step: Step) -> Package:
    """Prune at the trigger, quantise, export, build, measure and package for one target."""
    target, segment, trigger = watch.target, watch.segment, watch.trigger
    assert segment is not None and trigger is not None
    fit = target.fit(segment)
    pruned = step(
        prune,
        dense=segment,
        plan=WidthPlan(widths=fit.widths),
        dataset=dataset,
        training=recipe.training,
        batchnorm_batches=recipe.prune.batchnorm_batches,
        criterion=recipe.prune.criterion,
        finetune=recipe.prune.policy.finetune,
        schedule=recipe.prune.schedule,
    )
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
        estimates=target.estimates(fit.widths),
    )
    decisions = Decisions(
        recipe_name=recipe.name,
        recipe=recipe.model_dump_json(),
        trigger=trigger,
        criterion=recipe.prune.criterion,
        fit=fit,
        dense_widths=network.dense_widths,
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
