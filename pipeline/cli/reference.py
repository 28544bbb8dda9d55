"""The pages of `docs/` that are written by the code: every key of a recipe and a profile, every command and option.

python -m bonsai.pipeline.cli.reference      # from the checkout; a test compares the pages with what this writes
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.cli import get_docs_for_click

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
        "A mapping given whole replaces the file's: `--set model.options={}` leaves no option. A dotted key",
        "changes one entry. A profile's file adds to its parent (`extends`) key by key.",
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
    """Return the record that a key holds, or a list of, if it holds one."""
    references = [part["$ref"] for part in (value, value.get("items", {}), *value.get("anyOf", [])) if "$ref" in part]
    return records[references[0].rsplit("/", 1)[1]] if references else None


def _default(value: Schema) -> str:
    return "" if "$ref" in value or "default" not in value else f"`{yaml.safe_dump(value['default'], default_flow_style=True, width=1000).split(chr(10))[0]}`"


def _type(value: Schema, path: str) -> str:
    """Return in words what a key may hold."""
    if "$ref" in value:
        return f"[`{path}`](#{path.replace('.', '')})"
    if "anyOf" in value:
        return " or ".join(_type(part, path) for part in value["anyOf"])
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if value["type"] == "array":
        return f"list: {_type(value['items'], path)}"
    if value["type"] == "object":
        return f"mapping to {_type(value['additionalProperties'], path)}" if "additionalProperties" in value else "mapping"
    limits = [f"{sign} {value[name]:g}" for name, sign in LIMITS.items() if name in value]
    return ", ".join([NAMES[value["type"]], *limits])


def _sentence(text: str) -> str:
    return text if not text or text.endswith((".", ":")) else f"{text}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def command_page() -> str:
    """Return typer's own page of all commands, with our exit codes; examples are blocks, whose options a test looks up."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="bonsai"), name="bonsai", title="Commands")
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text)  # cut off after 45 characters, and each has its section
    text = re.sub(r"^Example:\n((?: +bonsai .*\n)+)", _example, text, flags=re.MULTILINE)
    return text.replace("# Commands\n", f"# Commands\n{NOTICE}\n\n{EXIT_CODES}\n", 1).rstrip() + "\n"


def _example(found: re.Match[str]) -> str:
    return "\n".join(["<!-- not run: an example of what it takes -->", "```sh", *(line.strip() for line in found[1].splitlines()), "```", ""])


def main(folder: Path = Path("docs")) -> None:
    """Write the pages into the checkout's folder of documentation."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
