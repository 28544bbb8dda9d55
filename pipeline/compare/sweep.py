"""Several values for a key of recipe or profile: a variant for each, or for each combination.

    variants_of({"prune.criterion": "snip,magnitude_l2", "training.seed": "0,1"})      # four

A text is several values where commas stand between them, outside brackets and quotes. A list is several values where the key takes no list; where it
takes one, a list of lists is.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.pipeline.run.loading import load
from bonsai.profiles.bounded_yaml import read_bounded
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import HardwareProfile

MOST = 24
"""Most variants of one comparison; each trains at least a branch."""
LONGEST_NAME = 24
"""Most characters of a value in a name; file systems take 255 for a whole name."""
PROFILE = "profile."


class Variant(NamedTuple):
    """One choice of values.

    Attributes:
        name: Tells it from the other variants, in names of packages; empty if there is only one.
        settings: The keys with several values, and what each is here.
        overrides: All overrides of this variant, as for `compress`.
    """

    name: str
    settings: dict[str, Any]
    overrides: dict[str, Any]

    def load(self, recipe: str, profiles: Sequence[str]) -> tuple[Recipe, list[HardwareProfile]]:
        """Load recipe and profiles as this variant has them; the profiles bear its name behind their own.

        Raises:
            ConfigError: One of them is not valid.
            DeviceUnavailable: The recipe trains on a GPU that is not here.
        """
        loaded, targets = load(recipe, profiles, self.overrides)
        return loaded, [target.model_copy(update={"name": f"{target.name}--{self.name}"}) if self.name else target for target in targets]


def variants_of(overrides: Mapping[str, Any]) -> tuple[Variant, ...]:
    """Return a variant for every combination of the values that overrides give.

    Raises:
        ConfigError: There are more than `MOST`, or a key has a value twice.
    """
    values = {key: found for key, value in overrides.items() if len(found := values_of(key, value)) > 1}
    for key, found in values.items():
        repeated = next((value for place, value in enumerate(found) if value in found[:place]), None)
        if repeated is not None:
            raise ConfigError(describe(f"--set {key}: a value is given twice", given=repeated, allowed="each value once", fix="drop one of them"))
    combinations = list(itertools.islice(itertools.product(*values.values()), MOST + 1))
    if len(combinations) > MOST:
        given = " x ".join(f"{len(found)} of {key}" for key, found in values.items())
        raise ConfigError(describe("--set: too many combinations", given=given, allowed=f"at most {MOST}", fix="give fewer values, or compare in several runs"))
    names = _names(values)
    found = []
    for chosen in combinations:
        settings = dict(zip(values, chosen, strict=True))
        name = "--".join(names[key][values[key].index(value)] for key, value in settings.items())
        found.append(Variant(name, settings, {**overrides, **settings}))
    return tuple(found)


def values_of(key: str, value: Any) -> list[Any]:
    """Return the values that an override gives: several, or one."""
    if isinstance(value, str):
        try:
            parts = read_bounded(f"[{value}]", key, with_lines=False)[0]
        except ConfigError:  # a text that is no part of a list; where it is not allowed at all, loading says so
            return [value]
        if len(parts) > 1:
            return list(parts)
        value = parts[0] if parts and isinstance(parts[0], list) else value
    if not isinstance(value, list | tuple):
        return [value]
    takes = takes_list(HardwareProfile, key.removeprefix(PROFILE)) if key.startswith(PROFILE) else takes_list(Recipe, key)
    several = all(isinstance(entry, list | tuple) for entry in value) if takes else takes is False
    return list(value) if several and len(value) > 1 else [value]


def takes_list(record: Any, key: str) -> bool | None:
    """Return whether a dotted key of a record takes a list; None where a key is unknown, or takes anything."""
    name, _, rest = key.partition(".")
    kinds = [(kind, get_origin(kind) or kind) for kind in _alternatives(record)]
    if not key:
        return None if any(origin in (Any, object) for _, origin in kinds) else any(origin in (tuple, list) for _, origin in kinds)
    for kind, origin in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and name in kind.model_fields:
            return takes_list(kind.model_fields[name].annotation, rest)
        if origin is dict:
            return takes_list(get_args(kind)[1], rest)
    return None


def _alternatives(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _alternatives(part)]
    return [annotation]


def _names(values: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """Return by key what each of its values is called: as little of the key as tells it from the other keys, and the value."""
    found = {}
    for key, several in values.items():
        parts = key.split(".")
        ends = [".".join(parts[-depth:]) for depth in range(1, len(parts) + 1)]
        others = [other for other in values if other != key]
        short = next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), key)
        slugs = [f"{_slug(short)}-{_slug(value)}" for value in several]
        found[key] = [slug if slugs.count(slug) == 1 else f"{slug}-{place}" for place, slug in enumerate(slugs, 1)]
    return found


def _slug(value: Any) -> str:
    """Return a value in the letters of a package's name."""
    text = re.sub(r"[^a-z0-9.]+", "-", str(value).lower().replace("+", "")).strip("-.")
    return text[:LONGEST_NAME].rstrip("-.") or "empty"
