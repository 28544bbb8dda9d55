"""Does EPI know the moment: the order of the rows, and the table of the page."""

from itertools import islice

import best_moment
from best_moment import EPI, MARK, MOMENTS, Row, table
from case import TASKS
from page import between


def row(moment: str, top1: float, *, seed: int = 0, epoch: float = 1.0) -> Row:
    common = {"task": "t", "start": "random", "criterion": "bn_gradient", "budget": 0.3, "cycle": 12, "cost": 13}
    return Row.model_validate({**common, "seed": seed, "moment": moment, "epoch": epoch, "top1": top1})


def test_epi_is_compared_with_the_best_other_moment_seed_by_seed() -> None:
    rows = [row("0", 0.7), row(EPI, 0.79, epoch=0.6), row("0.5", 0.8), row(EPI, 0.83, seed=1, epoch=0.72), row("0.5", 0.82, seed=1)]
    last = "70.00 | 81.00 ± 25.41 | - | - | 81.00 ± 12.71 | - | 0.60, 0.72 of 12 | +0.00 ± 12.71 |"
    lines = table(rows)
    assert lines[2] == f"| t, random | `bn_gradient` | 30% | 2 | {last}"
    assert lines[-1] == "| random | 2 | +9.00 | - | - | +0.00 ± 12.71 | - |"


def test_a_cell_without_another_moment_has_no_line() -> None:
    assert len(table([row(EPI, 0.8)])) == len(table([]))


def test_the_page_has_the_table_of_the_results() -> None:
    assert between(MARK) == table(best_moment.read())


def test_the_first_rows_are_all_moments_of_one_cell() -> None:
    first = list(islice(best_moment.points(1), len(MOMENTS)))
    assert [point.moment for point in first] == list(MOMENTS)
    assert len({point[:-1] for point in first}) == 1


def test_its_tasks_are_those_of_the_plain_ways() -> None:
    assert set(best_moment.TASKS) <= set(TASKS)
