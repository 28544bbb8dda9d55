"""Recipe and profiles of a run, with what was set over them. No torch: a mistake in them is told at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.points import require_open_batch
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.loader import load_profile
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.runtimes import graph_form

DEFAULT_STORE = Path("artifacts")
HALF_OPSET = 19


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
    if loaded.training.device != "cpu":
        from bonsai.stages.training.state import require_device  # here: torch costs seconds, and a mistake in a file is told without it

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
    _require_reference(loaded, profiles)
    for each in profiles:
        require_open_batch(each, dynamic_batch=loaded.export.dynamic_batch, key="export.dynamic_batch")
        _require_tables(each)
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


def _require_tables(profile: HardwareProfile) -> None:
    """Refuse latency tables that are not there, are damaged, or are of another runtime or another CPU; a device that is here is asked later."""
    if not profile.tables:
        return
    from bonsai.profiles.shared_tables import require_device, tables_of  # here: it imports NumPy

    device = profile.target.device
    for file, table in tables_of(profile).values():
        if device.isa:
            require_device(table, file, device=device.name, isa=device.isa, present=False)


def _require_reference(recipe: Recipe, profiles: Sequence[HardwareProfile]) -> None:
    """Refuse a gate on the accuracy drop if the recipe has no dense reference."""
    asking = [profile for profile in profiles if profile.gates.max_drop is not None]
    if recipe.training.reference == "none" and asking:
        given = ", ".join(f"gates.max_drop {profile.gates.max_drop:g} in profile {profile.name}" for profile in asking)
        raise ConfigError(
            describe(
                "a limit on the accuracy drop needs a reference, and training.reference is `none`",
                given=given,
                allowed="gates.max_drop null: without a reference no drop is known; gates.min_metric limits what the engine itself must reach",
                fix="set profile.gates.max_drop=null, or training.reference=trained",
            )
        )
