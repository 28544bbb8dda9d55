"""The way of the data, written once: from a recipe and its targets to packages.

    compress("resnet-edge", ["local-cpu"])

`step` decides whether a stage is a plain call (`Store.run`) or a Prefect task (`pipeline/tasks.py`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.precisions import harvest, prepare_field
from pipeline.publish import publish
from pipeline.recipe import Recipe, load_recipe
from pipeline.targets import inspect_network
from pipeline.trunk import grow_trunk, segment_stops
from profiles.errors import ConfigError, describe
from profiles.loader import load_profile
from profiles.schema import HardwareProfile
from stages.artifacts import Checkpoint, Dataset
from stages.backends.registry import check_target, graph_form
from stages.data.registry import source_digest
from stages.intervals import images_to_prove, least_provable_drop
from stages.package import Package
from stages.prepare import prepare
from stages.store import Step, Store, require_writable_folder
from stages.training.batches import load_split
from stages.training.progress import say
from stages.training.state import require_device

DEFAULT_STORE = Path("artifacts")
HALF_OPSET = 19
LEARNT = 0.25
"""Share of the way from the largest class's share to 1 that the dense network's accuracy must come, or it is told."""


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
        for variant in target.variants():
            check_target(variant.target)
    require_writable_folder(store, "--store")
    require_writable_folder(out or store / "packages", "--out")
    artifacts = Store(store)
    with artifacts.in_use():
        packages = grow(loaded, profiles, step or artifacts.run)
        for finished in packages:
            publish(finished, out or store / "packages")
    return packages


def load(recipe: str, profile: str | Sequence[str] | None, overrides: Mapping[str, Any] | None) -> tuple[Recipe, list[HardwareProfile]]:
    """Load recipe and profiles with their overrides.

    Raises:
        ConfigError: One of them does not exist, or is not valid.
        DeviceUnavailable: The recipe trains on a GPU that is not here.
    """
    overrides = overrides or {}
    prefix = "profile."
    for_profiles = {key.removeprefix(prefix): value for key, value in overrides.items() if key.startswith(prefix)}
    loaded = load_recipe(recipe, {key: value for key, value in overrides.items() if not key.startswith(prefix)})
    require_device(loaded.training)
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
    _require_opset(loaded, profiles)
    return loaded, profiles


def _require_opset(recipe: Recipe, profiles: Sequence[HardwareProfile]) -> None:
    """Refuse an operator set in which what a profile asks for cannot be written: DequantizeLinear gives FP16 from 19 on."""
    for profile in profiles:
        forms = [graph_form(variant.target.at(precision)) for variant in profile.variants() for precision in variant.target.candidates]
        if recipe.export.opset < HALF_OPSET and any(form.dialect != "float" and form.float_type == "fp16" for form in forms):
            raise ConfigError(
                describe(
                    f"profile {profile.name}: INT8 beside FP16 cannot be written in this operator set",
                    given=f"export.opset {recipe.export.opset}",
                    allowed=f"{HALF_OPSET} or later",
                    fix=f"set export.opset to {HALF_OPSET} or 20",
                )
            )


def warn_of_few(test_images: int, profiles: Sequence[HardwareProfile]) -> None:
    """Say which accuracy gates so few test images cannot prove, unless the engine is better than the dense network."""
    least = least_provable_drop(test_images)
    for profile in profiles:
        asked = profile.gates.max_accuracy_drop
        if asked < least:
            needed = f"{images_to_prove(asked)} are needed" if asked else "no number does"
            say(f"warning: {profile.name}: {test_images} test images prove no accuracy drop below {least:.3f}, asked is {asked:g}: {needed}")


def grow(recipe: Recipe, profiles: Sequence[HardwareProfile], step: Step) -> tuple[Package, ...]:
    """Run all stages for all targets: the trunk once, then a branch per target."""
    dataset = step(prepare, data=recipe.data, content=source_digest(recipe.data))
    segment_stops(recipe, dataset.sizes["train"])  # refuses a training that is too short before anything is timed
    warn_of_few(dataset.sizes["test"], profiles)
    network = inspect_network(recipe, dataset.image_shape, len(dataset.classes))
    fields = [prepare_field(recipe, profile, network, step) for profile in profiles]
    watches, dense = grow_trunk(recipe, dataset, [target for field in fields for target in field.targets], step)
    warn_of_chance(dense, dataset)
    return tuple(harvest(recipe, dataset, network, field, watches, dense, step) for field in fields)


def warn_of_chance(dense: Checkpoint, dataset: Dataset) -> None:
    """Say where the dense network has learnt next to nothing: its engine then meets any accuracy gate."""
    labels = load_split(dataset, "validation")[1]
    largest = int(labels.bincount().max()) / len(labels)
    top1 = dense.history[-1].validation_top1
    if top1 < largest + LEARNT * (1 - largest):
        known = f"always naming the largest class gives {largest:.2%}"
        say(f"warning: the dense network's validation top-1 is {top1:.2%}, and {known}: train longer, or check the data")
