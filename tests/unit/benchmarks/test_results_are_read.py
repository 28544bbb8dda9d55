"""The results and recipes in `benchmarks/`: the records of today read them, so that a benchmark goes on from what is there."""

import json
from pathlib import Path

import arena
import moments
import pytest
import selection
import vit

DEVICES = [arena.DEVICE, selection.DEVICE]


@pytest.mark.parametrize("name", ["oracle", "criteria", "soft"])
def test_outcomes_of_the_arena_are_read(name: str) -> None:
    assert len(arena.load_outcomes(arena.RESULTS / f"{name}.json")) >= 9


def test_results_of_selection_are_read() -> None:
    assert {result.method for result in selection.read()} == set(selection.DESCRIPTIONS)


def test_outcomes_of_moments_are_read() -> None:
    assert {moments.Outcome.model_validate(row).way for row in json.loads(moments.FILE.read_text())["outcomes"]} == set(moments.WAYS)


def test_the_transformer_is_within_its_budget() -> None:
    rows = [vit.Row.model_validate(row) for row in json.loads(vit.FILE.read_text())["rows"]]
    assert rows
    assert all(row.latency <= vit.BUDGET for row in rows)


@pytest.mark.parametrize("file", DEVICES, ids=lambda file: file.stem)
def test_a_latency_model_predicts_the_dense_network(file: Path) -> None:
    device = arena.Device.model_validate_json(file.read_text())
    dense = {name: max(widths) for name, widths in device.model.options.items()}
    assert device.model.latency(dense) == pytest.approx(device.dense_ms)


def test_the_arena_has_a_recipe_of_every_seed() -> None:
    first, second = (arena.arena_recipe(seed, "cpu", {"training.epochs": 2}) for seed in (0, 1))
    assert (first.training.seed, second.training.seed) == (0, 1)
    assert first.data == second.data
