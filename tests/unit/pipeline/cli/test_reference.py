"""The pages that the code writes, and the descriptions that they are written from."""

from pathlib import Path
from typing import Any

import pytest

from bonsai.pipeline.cli.json_schema import schema_of
from bonsai.pipeline.cli.reference import pages
from bonsai.profiles.budget import Budget
from bonsai.profiles.descriptions import keys_of
from bonsai.profiles.schema import ChannelMultiple
from bonsai.stages.backends.timing_config import LEAST_RUNS, TimingConfig
from bonsai.stages.training.config import DistillConfig

DOCS = Path(__file__).parents[4] / "docs"


@pytest.mark.parametrize("name", ["reference.md", "cli.md"])
def test_the_committed_page_is_what_the_code_writes(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], (
        f"docs/{name} is out of date: run `python -m bonsai.pipeline.cli.reference` and commit it"
    )


def records(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every object of a schema that has keys of its own, by its title."""
    inner = [value for value in schema.values() if isinstance(value, dict)]
    found = {schema["title"]: schema} if "title" in schema and "properties" in schema else {}
    for value in inner:
        found |= records(value)
    return found


@pytest.mark.parametrize("what", ["recipe", "profile"])
def test_every_key_is_described(what: Any) -> None:
    described = records(schema_of(what))
    assert {"recipe": "PruneConfig", "profile": "Budget"}[what] in described
    holds_record = [part for record in described.values() for part in record["properties"].values() if "$ref" in part]
    bare = [f"{title}.{key}" for title, record in described.items() for key, value in record["properties"].items() if "description" not in value]
    bare = [name for name in bare if described[name.split(".")[0]]["properties"][name.split(".")[1]] not in holds_record]
    assert bare == [], "describe them under `Attributes:` in the record's docstring"
    assert [title for title, record in described.items() if not record.get("description")] == []


def test_a_key_is_described_by_the_record_or_by_its_parent() -> None:
    assert keys_of(DistillConfig)["weight"] == "Share of the teacher's loss, 0-1; the labels have the rest."
    assert keys_of(DistillConfig)["teacher"].startswith("`trained`, the dense reference")
    assert set(keys_of(ChannelMultiple)) == {"fp32", "fp16", "int8"}


def test_a_description_of_several_lines_is_one_line_and_stands_at_its_key_in_the_schema() -> None:
    text = TimingConfig.model_json_schema()["properties"]["seconds"]["description"]
    assert text == f"A slow engine is run less often, so that its runs take about this long, but no fewer than {LEAST_RUNS} times."
    assert "Attributes" not in Budget.model_json_schema()["description"]
