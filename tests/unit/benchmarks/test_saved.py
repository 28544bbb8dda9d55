"""What pruning early saves: the settings of a row, and the table of the page."""

from pathlib import Path

import pytest
import saved
import yaml
from page import between
from saved import CYCLE, MARK, TARGETS, WAYS, Key, Row, choices, keys, table, write_profile

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.profiles.loader import load_profile


def row(way: str, length: float | str, top1: float, seconds: float, *, seed: int = 0) -> Row:
    return Row(seed=seed, targets=1, way=way, length=length, top1=(top1,), latency=(0.3,), cpu_seconds=seconds, wall_seconds=seconds)


def test_a_length_is_compared_with_half_a_cycle_of_fine_tuning_seed_by_seed() -> None:
    rows = [row("trained", 0.5, 0.8, 100), row("early", "auto", 0.9, 50), row("trained", 0.5, 0.8, 200, seed=1), row("early", "auto", 0.92, 80, seed=1)]
    lines = table(rows)
    assert "| 1 | early | auto | 2 | 91.00 ± 12.71 | 0.45 ± 0.64 |" in lines
    assert "| 1 | trained | 0.5 | 2 | 80.00 ± 0.00 | 1.00 ± 0.00 |" in lines


def test_the_page_has_the_table_of_the_results() -> None:
    assert between(MARK) == table(saved.read())


@pytest.mark.parametrize("key", list(keys(1)), ids=str)
def test_the_settings_of_every_row_are_a_recipe(key: Key, tmp_path: Path) -> None:
    recipe = yaml.safe_load(saved.RECIPE.format(model="resnet8", width=16, seed=0, epochs=CYCLE, lr=0.1, data='name: "glyphs"'))
    recipe["training"]["reference"] = "none"
    recipe["prune"] |= choices(key)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    loaded = load_recipe(str(tmp_path / "recipe.yaml"))
    assert (loaded.prune.policy.name == "trained") == (key.way == "trained")


def test_every_target_has_a_profile_of_its_own(tmp_path: Path) -> None:
    for budgets in TARGETS.values():
        profiles = [load_profile(str(tmp_path / write_profile(tmp_path, budget))) for budget in budgets]
        assert [profile.budget.latency for profile in profiles] == list(budgets)


def test_every_length_comes_once() -> None:
    assert len(list(keys(1))) == len(TARGETS) * sum(map(len, WAYS.values()))
