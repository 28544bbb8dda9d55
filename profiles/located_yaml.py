"""YAML files as records: where every value came from, so that an error can name its line."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from bonsai.profiles.bounded_yaml import MAX_BYTES, MAX_DEPTH, KeyPath, read_bounded, require_size
from bonsai.profiles.descriptions import keys_of, summary_of
from bonsai.profiles.errors import ConfigError, describe, shorten, suggestion

RecordT = TypeVar("RecordT", bound="Record")
SHOWN = 10
"""Most errors that a message lists."""


class Record(BaseModel):
    """A value that crosses a border: frozen, complete, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def identity(self) -> str:
        """Return what tells this record from another as an input: its JSON, unless it stands for more than that."""
        return self.model_dump_json()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the JSON schema with every key's description at the key, where editors look for it."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        schema["description"] = summary_of(cls)
        for key, text in keys_of(cls).items():
            schema["properties"][key]["description"] = text
        return reference


class LocatedMapping:
    """A nested mapping and, for each of its keys, the file and line that set it.

    Args:
        data: Plain mappings, sequences and scalars.
        origins: Key path to a place such as ``recipe.yaml:12`` or ``--set``.
        name: Name of the file in messages.
    """

    def __init__(self, data: dict[str, Any], origins: dict[KeyPath, str], name: str) -> None:
        self.data = data
        self.origins = origins
        self.name = name

    def origin(self, path: KeyPath) -> str:
        """Return the place that set the nearest known ancestor of `path`."""
        while path:
            if path in self.origins:
                return self.origins[path]
            path = path[:-1]
        return self.name

    def renamed(self, path: KeyPath, new: KeyPath) -> "LocatedMapping":
        """Return this source with the key at `path`, an older name, at `new`, so that it can be merged with sources of either name.

        Raises:
            ConfigError: Both names are set.
        """
        if not self._has(path):
            return self
        value = self.value(path)
        if self._has(new):
            raise ConfigError(
                describe(
                    f"{self.origin(path)}: {'.'.join(path)!r} is the older name of {'.'.join(new)!r}, and both are set",
                    given=f"{value!r}, and {self.value(new)!r} at {self.origin(new)}",
                    allowed="one of the two",
                    fix=f"delete {path[-1]!r}",
                )
            )
        origins = {place: origin for place, origin in self.origins.items() if place != path}
        return LocatedMapping(_put(_without(self.data, path), new, value), {**origins, new: self.origin(path)}, self.name)

    def merged(self, other: "LocatedMapping") -> "LocatedMapping":
        """Return this source with the values of `other`, a file, laid over it: mappings of both are joined key by key."""
        return _joined(self, other, _merge(self.data, other.data))

    def changed(self, overrides: "LocatedMapping") -> "LocatedMapping":
        """Return this source with what `from_overrides` read: each dotted key gets its value as it is, so that a mapping replaces the one here."""
        data, replaced = self.data, overrides.origins
        for path in replaced:
            data = _put(data, path, overrides.value(path))
        kept = {path: place for path, place in self.origins.items() if not any(path[:depth] in replaced for depth in range(1, len(path)))}
        return _joined(LocatedMapping(self.data, kept, self.name), overrides, data)

    def _has(self, path: KeyPath) -> bool:
        table: Any = self.data
        for key in path:
            if not isinstance(table, dict) or key not in table:
                return False
            table = table[key]
        return True

    def value(self, path: KeyPath) -> Any:
        """Return the value at the path of a key that is here."""
        value: Any = self.data
        for key in path:
            value = value[key]
        return value


def read_yaml(file: Path) -> LocatedMapping:
    """Read a YAML mapping, refusing duplicate keys.

    Raises:
        ConfigError: The file cannot be read, or `parse_yaml` refuses it.
    """
    try:
        if file.exists() and not file.is_file():
            raise OSError("not a regular file")
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        require_size(len(content), str(file))
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(describe(f"{file}: cannot be read", given=error, allowed="a readable YAML file in UTF-8", fix="check the path")) from error
    return parse_yaml(text, file)


def parse_yaml(text: str, file: Path) -> LocatedMapping:
    """Read a YAML mapping that stands, or will stand, in `file`.

    Raises:
        ConfigError: It is no YAML, no mapping, sets a key twice, or is beyond a limit of `profiles/bounded_yaml.py`.
    """
    data, lines = read_bounded(text, str(file))
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(describe(f"{file}: holds no mapping", given=type(data).__name__, allowed="key: value lines", fix="see the shipped files"))
    return LocatedMapping(data, {path: f"{file}:{line}" for path, line in lines.items()}, str(file))


def from_overrides(overrides: Mapping[str, Any], name: str = "--set ") -> LocatedMapping:
    """Turn dotted keys (``{"prune.floor": "0.2"}``) into a source; text values are read as YAML.

    Raises:
        ConfigError: Two overrides contradict each other, such as `a={}` and `a.b=2`.
    """
    data: dict[str, Any] = {}
    origins: dict[KeyPath, str] = {}
    for dotted, value in sorted(overrides.items(), key=lambda item: item[0].count(".")):
        *parents, leaf = path = tuple(dotted.split("."))
        if len(path) > MAX_DEPTH:
            problem = f"{name}{shorten(dotted)}: nested too deeply"
            raise ConfigError(describe(problem, given=f"{len(path)} levels", allowed=f"at most {MAX_DEPTH} levels", fix="see the shipped files"))
        within = next((path[:depth] for depth in range(1, len(path)) if path[:depth] in origins), None)
        if within is not None:
            whole = ".".join(within)
            given = f"{name}{whole} sets all of it, {name}{dotted} an entry"
            raise ConfigError(
                describe(
                    f"{name}{dotted}: contradicts another override",
                    given=given,
                    allowed="a mapping as a whole, or its entries by dotted keys",
                    fix=f"drop one of them, or write {'.'.join(path[len(within) :])} into {whole}={{...}}",
                )
            )
        table = data
        for parent in parents:
            table = table.setdefault(parent, {})
        place = f"{name}{dotted}"
        table[leaf] = read_bounded(value, place, with_lines=False)[0] if isinstance(value, str) else value
        origins[path] = place
    return LocatedMapping(data, origins, name)


def validate(record: type[RecordT], source: LocatedMapping) -> RecordT:
    """Build `record` from `source`.

    Raises:
        ConfigError: A key is unknown or missing, or a value is not allowed; the message names
            the place, what was given, what is allowed and what to do. All faults are listed.
    """
    try:
        built = record.model_validate(source.data)
    except ValidationError as error:
        faults = [_fault(record, source, dict(detail)) for detail in error.errors()[:SHOWN]]
        more = error.error_count() - len(faults)
        raise ConfigError("\n".join([*faults, *([f"and {more} more"] if more else [])])) from error
    for path in nonfinite(built.model_dump()):
        dotted = ".".join(path)
        fix = f"change {dotted!r}"
        raise ConfigError(describe(f"{source.origin(path)}: {dotted!r} is not usable", given="infinity or NaN", allowed="a finite number", fix=fix))
    return built


def nonfinite(value: Any, path: KeyPath = (), *, largest: float | None = None) -> Iterator[KeyPath]:
    """Yield the path of every number in nested mappings and sequences that is infinite, NaN, or further from 0 than `largest`."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from nonfinite(inner, (*path, str(key)), largest=largest)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from nonfinite(inner, (*path, str(index)), largest=largest)
    elif (isinstance(value, float) and not math.isfinite(value)) or (largest is not None and isinstance(value, int | float) and abs(value) > largest):
        yield path


def _without(data: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    """Return `data` without the key at a path, which is there."""
    if len(path) == 1:
        return {key: value for key, value in data.items() if key != path[0]}
    return {**data, path[0]: _without(data[path[0]], path[1:])}


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def _joined(base: LocatedMapping, over: LocatedMapping, data: dict[str, Any]) -> LocatedMapping:
    """Return `data`, made of two sources, of which `over` counts where both set a key."""
    parents = {path[:depth]: place for path, place in over.origins.items() for depth in range(1, len(path))}
    return LocatedMapping(data, {**parents, **base.origins, **over.origins}, base.name)


def _put(data: Any, path: KeyPath, value: Any) -> Any:
    """Return `data` with another value at a path; what stands in the way of it and is no mapping gives way."""
    if not path:
        return value
    here = data if isinstance(data, dict) else {}
    return {**here, path[0]: _put(here.get(path[0]), path[1:], value)}


def _fault(record: type[BaseModel], source: LocatedMapping, detail: dict[str, Any]) -> str:
    path = tuple(str(part) for part in detail["loc"])
    dotted = shorten(".".join(path)) or "(whole file)"
    place = source.origin(path)
    if detail["type"] == "extra_forbidden":
        allowed = sorted(_fields_at(record, path[:-1]))
        return describe(
            f"{place}: unknown key {dotted!r}{suggestion(path[-1], allowed)}",
            given=f"{dotted} = {shorten(repr(detail['input']))}",
            allowed=allowed,
            fix="use one of the allowed keys, or remove it",
        )
    if detail["type"] == "missing":
        return describe(f"{place}: key {dotted!r} is missing", given="nothing", allowed="a value", fix=f"add {dotted!r}")
    allowed_text = detail["msg"].removeprefix("Value error, ")
    return describe(f"{place}: {dotted!r} is not usable", given=shorten(repr(detail["input"])), allowed=allowed_text, fix=f"change {dotted!r}")


def _fields_at(record: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the field names of the nested record at `path`; list indices are passed over."""
    current = record
    for part in path:
        if part not in current.model_fields:
            continue
        annotation = current.model_fields[part].annotation
        nested = [t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)]
        if not nested:
            return []
        current = nested[0]
    return list(current.model_fields)
