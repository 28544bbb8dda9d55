"""The pages of `docs/` that are written by the code: every key of a recipe and a profile, every command and option.

python -m bonsai.pipeline.cli.reference      # from the checkout; a test compares the pages with what this writes
"""

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
import yaml
from typer.models import ArgumentInfo, OptionInfo

from bonsai.pipeline.cli.json_schema import schema_of
from bonsai.pipeline.cli.main import EXIT_CODES, app
from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.profiles.bounded_yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES
from bonsai.profiles.loader import load_profile

Schema = dict[str, Any]

NOTICE = "<!-- Written by `python -m bonsai.pipeline.cli.reference`: change the docstrings that it reads, not this page. -->"
PROFILE_SHOWN = "rtx-4090"
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
NAMES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    return {"reference.md": reference_page(), "cli.md": command_page()}


def reference_page() -> str:
    """Return the page of all keys."""
    recipe, profile = schema_of("recipe"), schema_of("profile")
    least = Recipe.model_validate(
        {"name": "my-recipe", "description": "every key at its default", "model": {"name": "resnet20"}, "data": {"name": "digits", "options": {"size": 32}}}
    )
    whole = profile["else"]
    whole["properties"] = {"extends": {**profile["then"]["properties"]["extends"], "default": None}, **whole["properties"]}
    lines = [
        "# Reference: every key of a recipe and of a profile",
        NOTICE,
        "",
        "The same as JSON schemas, for editors: `bonsai schema recipe`, `bonsai schema profile`. On the command line a key is set by its path:",
        "`--set prune.epi.window=3`, `--set profile.budget.latency=0.3`. An unknown key is an error that names the nearest one.",
        "",
        f"A file has at most {MAX_BYTES // 1024} KiB, {MAX_NODES:,} keys and values (what an alias stands for counts each time)",
        f"and {MAX_DEPTH} levels. Values are texts, finite numbers of at most 64 bits, `true`, `false` and `null`. Dates, octal",
        "numbers (`0777`) and numbers to base 60 (`1:30`) are refused: quote a text.",
        "",
        "[Recipe](#recipe): what to compress, and how. [Profile](#profile): what a device can do and must achieve.",
        "",
        "## Recipe",
        "A recipe must have `name`, `description`, `model.name` and `data.name`; this is one with every other key at its default:",
        "",
        *_yaml(least.model_dump(mode="json", exclude={"model": {"content"}, "data": {"content"}})),
        "",
        *_record(recipe, recipe["$defs"]),
        "## Profile",
        "A profile mostly says what differs from another one, its `extends`; what is *required* below may stand there.",
        f"This is the shipped `{PROFILE_SHOWN}`, written out:",
        "",
        *_yaml(load_profile(PROFILE_SHOWN).model_dump(mode="json")),
        "",
        *_record(whole, profile["$defs"]["whole"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _yaml(data: object) -> list[str]:
    return ["```yaml", *yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=150, allow_unicode=True).splitlines(), "```"]


def _record(schema: Schema, records: dict[str, Schema], path: str = "") -> Iterator[str]:
    """Write the table of a record, then those of the records in it."""
    if path:
        yield f"### `{path}`"
    if schema["description"]:
        yield from (_sentence(schema["description"]), "")
    required = schema.get("required", [])
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    inner = []
    for key, value in schema["properties"].items():
        record = _inner(value, records)
        here = f"{path}.{key}".lstrip(".")
        if record is not None:
            inner.append((here, record))
        meaning = value.get("description") or (record or {}).get("description", "")
        default = "*required*" if key in required else _default(value)
        yield f"| `{key}` | {_type(value, here)} | {default} | {_cell(_sentence(meaning))} |"
    yield ""
    for here, record in inner:
        yield from _record(record, records, here)


def _inner(value: Schema, records: dict[str, Schema]) -> Schema | None:
    """Return the record that a key holds, if it holds one."""
    references = [part["$ref"] for part in (value, *value.get("anyOf", [])) if "$ref" in part]
    return records[references[0].rsplit("/", 1)[1]] if references else None


def _default(value: Schema) -> str:
    return "" if "$ref" in value or "default" not in value else f"`{yaml.safe_dump(value['default'], default_flow_style=True, width=1000).split(chr(10))[0]}`"


def _type(value: Schema, path: str) -> str:
    """Return in words what a key may hold."""
    if "$ref" in value:
        return f"[`{path}`](#{path.replace('.', '')})"
    if "anyOf" in value:
        return " or ".join(_type(part, path) for part in value["anyOf"])
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if value["type"] == "array":
        return f"list: {_type(value['items'], path)}"
    if value["type"] == "object":
        return f"mapping to {_type(value['additionalProperties'], path)}"
    limits = [f"{sign} {value[name]:g}" for name, sign in LIMITS.items() if name in value]
    return ", ".join([NAMES[value["type"]], *limits])


def _sentence(text: str) -> str:
    return text if not text or text.endswith((".", ":")) else f"{text}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def command_page() -> str:
    """Return the page of all commands, read from the signatures of their functions."""
    lines = ["# Commands", NOTICE, "", "`bonsai --help` and `bonsai COMMAND --help` say the same.", "", EXIT_CODES, ""]
    for name, function in _commands(app, "bonsai"):
        arguments: list[tuple[str, str, str]] = []
        options: list[tuple[str, str, str]] = []
        for parameter in inspect.signature(function).parameters.values():
            (declared,) = get_args(parameter.annotation)[1:]
            (arguments if isinstance(declared, ArgumentInfo) else options).append(_parameter(parameter, declared))
        usage = " ".join([name, *(shown for shown, *_ in arguments), *["[OPTIONS]" for _ in options[:1]]])
        lines += [f"## `{name}`", "```text", usage, "```", "", *_paragraphs(inspect.getdoc(function) or "")]
        lines += ["| argument or option | default | meaning |", "|---|---|---|"] if arguments or options else []
        lines += [f"| `{_cell(shown)}` | {default} | {_cell(meaning)} |" for shown, default, meaning in (*arguments, *options)] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: typer.Typer, path: str) -> Iterator[tuple[str, Callable[..., object]]]:
    """Walk all commands, those of groups too."""
    for info in group.registered_commands:
        if info.callback is not None and not info.hidden:
            yield f"{path} {info.name or info.callback.__name__.replace('_', '-')}", info.callback
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from _commands(inner.typer_instance, f"{path} {inner.name or inner.typer_instance.info.name}")


def _paragraphs(docstring: str) -> Iterator[str]:
    """Write a command's help, each of its paragraphs in a line; an example of commands alone as a block, whose options a test looks up."""
    for paragraph in docstring.split("\n\n"):
        example = [line.strip() for line in paragraph.removeprefix("Example: ").splitlines()]
        if paragraph.startswith("Example: ") and all(line.startswith("bonsai ") and ", " not in line for line in example):
            yield from ("<!-- not run: an example of what it takes -->", "```sh", *example, "```", "")
        else:
            yield from (" ".join(paragraph.split()), "")


def _parameter(parameter: inspect.Parameter, declared: ArgumentInfo | OptionInfo) -> tuple[str, str, str]:
    """Return how an argument or option is written, its default, and what it means."""
    kinds = [kind for kind in _kinds(parameter.annotation) if kind is not type(None)]
    several = " ..." if any(get_origin(kind) is list for kind in kinds) else ""
    choices = [choice.value for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum) for choice in kind]
    value = "|".join(choices) if choices else declared.metavar or ""
    default = "*required*" if parameter.default is parameter.empty else "" if parameter.default in (None, False) else f"`{parameter.default}`"
    if isinstance(declared, ArgumentInfo):
        return f"{value or parameter.name.upper()}{several}", default, declared.help or ""
    flags = [flag for flag in (declared.default, *(declared.param_decls or ())) if isinstance(flag, str)]  # typer takes the first one for a default
    flag = ", ".join(flags or [f"--{parameter.name.replace('_', '-')}"])
    if kinds == [bool]:
        return flag, f"`{flag.split('/')[0]}`" if parameter.default else "", declared.help or ""
    return f"{flag} {value or parameter.name.upper()}{several}", default, declared.help or ""


def _kinds(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows: its own, the members of a union, the items of a list."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for member in get_args(annotation) for kind in _kinds(member)]
    if get_origin(annotation) is list:
        return [annotation, *_kinds(get_args(annotation)[0])]
    return [annotation]


def main(folder: Path = Path("docs")) -> None:
    """Write the pages into the checkout's folder of documentation."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
