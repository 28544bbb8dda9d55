"""Bonsai's default against the plain ways: the rows, their order, and the tables of the page."""

from collections.abc import Iterator
from pathlib import Path

import plain_ways
import pytest
from page import between, write_between
from plain_ways_page import DENSE, MARK, OURS, PLAIN, Key, Row, tables


def row(way: str, top1: float, *, seed: int = 0, budget: float = 0.3) -> Row:
    return Row(
        seed=seed,
        task="t",
        network="n",
        cycle=4,
        budget=1 if way == DENSE else budget,
        way=way,
        latency=budget / 2,
        before=0,
        after=4,
        cost=4,
        top1=top1,
        seconds=1,
    )


ROWS = [row(DENSE, 0.9), row(OURS, 0.8), row("narrower", 0.7), row(OURS, 0.82, seed=1), row("narrower", 0.74, seed=1), row("initialisation", 0.9, seed=2)]


def test_a_cell_shows_means_and_how_far_the_default_is_ahead_seed_by_seed() -> None:
    assert tables(ROWS)[2] == "| t, n | 4 | 30% | 2 | 90.00 | **81.00 ± 12.71** | - | - | - | 72.00 ± 25.41 (+9.00 ± 12.71) |"


def test_pairs_are_pooled_over_cells() -> None:
    assert tables(ROWS)[-1] == "| n | 4 | 30% | 2 | (0.50) | - | - | - | +9.00 ± 12.71 (0.50) |"


def test_the_page_has_the_tables_of_the_results() -> None:
    assert between(MARK) == tables(plain_ways.read())


def test_only_what_stands_between_the_comments_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nafter\n")
    write_between("a", ["new", r"\d"], page)
    assert page.read_text() == "before\n<!-- a -->\nnew\n\\d\n<!-- /a -->\nafter\n"


def first_of(keys: Iterator[Key], count: int) -> list[Key]:
    return [key for key, _ in zip(keys, range(count), strict=False)]


def test_the_first_rows_compare_all_ways_in_every_task_and_network() -> None:
    ways = {DENSE, OURS, *PLAIN}
    cells = len(plain_ways.TASKS) * len(plain_ways.NETWORKS)
    first = first_of(plain_ways.keys(1), cells * len(ways))
    assert {(key.task, key.network, key.way) for key in first} == {(t, n, way) for t in plain_ways.TASKS for n in plain_ways.NETWORKS for way in ways}


def test_every_way_has_a_title() -> None:
    assert set(plain_ways.WAYS) == {DENSE, OURS, *PLAIN}


def test_rows_that_ran_meet_the_limit_and_cost_what_the_default_costs() -> None:
    rows = {found.key: found for found in plain_ways.read()}
    assert rows
    for found in rows.values():
        assert found.latency <= found.budget * (1 + 1e-9)
        if found.way in PLAIN:
            assert found.cost == pytest.approx(rows[found.key._replace(way=OURS)].cost, abs=0.6)
