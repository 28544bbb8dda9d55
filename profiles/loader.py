"""From a profile's name or path to a `HardwareProfile`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bonsai.profiles.errors import ConfigError, describe, suggestion
from bonsai.profiles.located_yaml import LocatedMapping, from_overrides, read_yaml, validate
from bonsai.profiles.schema import OLDER_NAMES, HardwareProfile
from bonsai.profiles.table_names import SUFFIX

SHIPPED = Path(__file__).parent
MOST_PARENTS = 20
EITHER = ("latency", "latency_ms")
"""A budget has one of these two keys."""


def list_profiles() -> list[str]:
    """Return the names of the profiles that ship with Bonsai."""
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def load_profile(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> HardwareProfile:
    """Load a profile by its shipped name or by the path of a YAML file.

    A file may name a parent with ``extends``; its own values are laid over the parent's. A budget in one unit replaces a parent's in the other.

    Args:
        name_or_path: A name of `list_profiles()` or a path that ends in ``.yaml`` or ``.yml``.
        overrides: Values by dotted key, such as ``{"budget.latency": 0.3}``. A mapping replaces the file's, and its parents'.

    Raises:
        ConfigError: The profile does not exist, or is not valid.
    """
    source = _with_parents(find_yaml(name_or_path, "profile", SHIPPED), seen=())
    if overrides:
        given = _with_new_names(from_overrides(overrides, "--set profile."))
        source = _without_other_budget(source, given).changed(given)
    return validate(HardwareProfile, source)


def load_remote(name_or_path: str) -> HardwareProfile:
    """Load a profile whose device has an address.

    Raises:
        ConfigError: The profile does not exist, is not valid, or has no address.
    """
    profile = load_profile(name_or_path)
    if profile.target.device.address is None:
        problem, fix = f"profile {profile.name}: its device has no address", "set target.device.address, such as ssh://pi@kitchen.local"
        raise ConfigError(describe(problem, given=name_or_path, allowed="a profile with target.device.address", fix=fix))
    return profile


def find_yaml(name_or_path: str, what: str, shipped: Path) -> Path:
    """Return the file of a shipped name or of a path.

    Raises:
        ConfigError: Neither such a name nor such a file exists.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        if _is_file(Path(name_or_path)):
            return Path(name_or_path)
        raise ConfigError(
            describe(
                f"{what} file not found",
                given=name_or_path if Path(name_or_path).is_absolute() else f"{name_or_path}, looked for in {Path.cwd()}",
                allowed="an existing .yaml file",
                fix=f"check the path, or `bonsai list {what}s`",
            )
        )
    names = sorted(file.stem for file in shipped.glob("*.yaml"))
    if name_or_path not in names:
        raise ConfigError(
            describe(
                f"no {what} of this name{suggestion(name_or_path, names)}",
                given=name_or_path,
                allowed=names,
                fix=f"use one of these names, or the path of a .yaml file; `bonsai list {what}s` describes them",
            )
        )
    return shipped / f"{name_or_path}.yaml"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for the file system
        return False


def _with_parents(file: Path, seen: tuple[Path, ...]) -> LocatedMapping:
    source = _with_new_names(read_yaml(file))
    if isinstance(source.data.get("tables"), list):
        source.data["tables"] = [str(file.parent / str(table)) if str(table).endswith(SUFFIX) else table for table in source.data["tables"]]
    target = source.data.get("target")
    if isinstance(target, dict) and target.get("timing_cache") is not None:
        target["timing_cache"] = str(file.parent / str(target["timing_cache"]))
    parent = source.data.pop("extends", None)
    if parent is None:
        return source
    if len(seen) > MOST_PARENTS:
        problem = f"{file}: profiles extend each other too often"
        raise ConfigError(describe(problem, given=f"more than {MOST_PARENTS} files", allowed="a short chain", fix="put values into one file"))
    parent_file = file.parent / str(parent) if str(parent).endswith((".yaml", ".yml")) else find_yaml(str(parent), "profile", SHIPPED)
    if parent_file in (*seen, file):
        raise ConfigError(describe(f"{file}: profiles extend each other in a circle", given=parent, allowed="a chain that ends", fix="remove one `extends`"))
    return _without_other_budget(_with_parents(parent_file, (*seen, file)), source).merged(source)


def _without_other_budget(parent: LocatedMapping, child: LocatedMapping) -> LocatedMapping:
    """Return the parent without its budget in the other unit, where the child has a budget in one."""
    budget, inherited = child.data.get("budget"), parent.data.get("budget")
    if not isinstance(budget, dict) or not isinstance(inherited, dict):
        return parent
    given = [key for key in EITHER if budget.get(key) is not None]
    if len(given) != 1:
        return parent
    left = {key: value for key, value in inherited.items() if key in given or key not in EITHER}
    return LocatedMapping({**parent.data, "budget": left}, parent.origins, parent.name)


def _with_new_names(source: LocatedMapping) -> LocatedMapping:
    """Return a source whose keys have today's names, so that what is laid over a parent replaces it whichever name either uses."""
    for path, name in OLDER_NAMES.items():
        source = source.renamed(path, name)
    return source
