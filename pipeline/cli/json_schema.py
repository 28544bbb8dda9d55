"""JSON schemas of the files that a user writes, for `bonsai schema`."""

from typing import Any, Literal

from bonsai.pipeline.recipes.recipe import Recipe
from bonsai.profiles.schema import HardwareProfile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(what: Literal["profile", "recipe"]) -> dict[str, Any]:
    """Return the JSON schema of a kind of file.

    It has keys, types and ranges. Rules about several keys, such as exactly one of the two budgets, are checked only when a file is loaded.
    """
    return {"$schema": DIALECT, **(Recipe.model_json_schema() if what == "recipe" else _profile())}


def _profile() -> dict[str, Any]:
    """Return the schema of a whole profile, and of one that leaves to its parent what it does not say."""
    whole = HardwareProfile.model_json_schema(ref_template="#/$defs/whole/{model}")
    partial = _without_required(HardwareProfile.model_json_schema(ref_template="#/$defs/partial/{model}"))
    partial["properties"]["extends"] = {"type": "string", "description": "Name or file of the profile that this one is laid over."}
    return {
        "title": whole["title"],
        "if": {"required": ["extends"]},
        "then": partial,
        "else": whole,
        "$defs": {"whole": whole.pop("$defs"), "partial": partial.pop("$defs")},
    }


def _without_required(schema: Any) -> Any:
    """Return a schema that demands no key."""
    if isinstance(schema, dict):
        return {key: _without_required(value) for key, value in schema.items() if key != "required"}
    return [_without_required(item) for item in schema] if isinstance(schema, list) else schema
