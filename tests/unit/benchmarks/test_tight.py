"""Choices at tight budgets: the order of the rows, and the table of the page."""

from itertools import islice

import tight
from case import NETWORKS, TASKS
from page import between
from tight import CUT_ELSEWHERE, DEFAULT, MARK, PAGE, WAYS, Row, keys, table


def row(way: str, top1: float, *, seed: int = 0) -> Row:
    figures = {"latency": 0.1, "macs": 0.1, "before": 1, "after": 9, "cost": 3, "widths": {}, "seconds": 1}
    return Row.model_validate({"seed": seed, "task": tight.TASKS[0], "budget": 0.1, "way": way, "top1": top1, **figures})


def test_a_way_is_compared_with_the_default_seed_by_seed() -> None:
    lines = table([row(DEFAULT, 0.8), row("uniform", 0.78), row(DEFAULT, 0.82, seed=1), row("uniform", 0.81, seed=1), row("global", 0.9, seed=2)])
    assert lines[0] == f"| way | {tight.TASKS[0]}, 10% | both tasks, 10% |"
    assert "| default | 81.00 ± 12.71 | (100%) |" in lines
    assert "| uniform | 79.50 ± 19.06 (-1.50 ± 6.35) | -1.50 ± 6.35 (2 pairs; 100%) |" in lines
    assert "| global | 90.00 | (100%) |" in lines
    assert not any("narrower" in line for line in lines)  # it has not run


def test_the_page_has_the_table_of_the_results() -> None:
    assert between(MARK, PAGE) == table(tight.read())


def test_the_first_rows_compare_all_ways_in_one_cell() -> None:
    first = list(islice(keys(1), len(WAYS)))
    assert [key.way for key in first] == list(WAYS)
    assert len({key[:-1] for key in first}) == 1


def test_rows_that_ran_meet_the_limit_and_cost_what_the_default_costs() -> None:
    rows = {found.key: found for found in tight.read()}
    for found in rows.values():
        assert found.latency <= found.budget * (1 + 1e-9)
        default = rows[found.key._replace(way=DEFAULT)]
        assert abs(found.cost - default.cost) <= 1.5
        assert found.way in CUT_ELSEWHERE or found.before == default.before  # else they were trained on different machines


def test_its_tasks_and_network_are_cases() -> None:
    assert set(tight.TASKS) <= set(TASKS)
    assert tight.NETWORK in NETWORKS
