"""Criteria of a trained network: the order of the rows, and the table of the page."""

from itertools import islice
from typing import get_args

import criteria_trained
from criteria_trained import BASE, MARK, PENALISED, Row, keys, table
from page import between
from tight import TASKS

from bonsai.stages.pruning.config import RegulariserConfig
from bonsai.stages.pruning.criteria import Criterion


def row(way: str, after_cut: float, tuned: float, *, seed: int = 0) -> Row:
    return Row(seed=seed, task=TASKS[0], budget=0.3, way=way, dense=0.9, after_cut=after_cut, tuned=tuned)


def test_a_way_is_compared_with_the_base_seed_by_seed() -> None:
    lines = table([row(BASE, 0.5, 0.8), row("fpgm", 0.6, 0.81), row(BASE, 0.52, 0.82, seed=1), row("fpgm", 0.64, 0.84, seed=1), row("random", 0.1, 0.7)])
    assert lines[0] == "| way | dense | pairs | 30%: after the cut | 30%: fine-tuned |"
    assert lines[2:] == [
        "| `fpgm` | 90.00 | 2 | +11.00 ± 12.71 | +1.50 ± 6.35 |",
        f"| `{BASE}` | 90.00 | 2 | 51.00 | 81.00 |",
        "| `random` | 90.00 | 1 | -40.00 | -10.00 |",
    ]


def test_the_page_has_the_table_of_the_results() -> None:
    assert between(MARK) == table(criteria_trained.read())


def test_the_first_rows_compare_all_criteria_in_one_cell() -> None:
    first = list(islice(keys(1), len(get_args(Criterion))))
    assert {key.way for key in first} == set(get_args(Criterion))
    assert len({key[:-1] for key in first}) == 1


def test_every_regulariser_is_tried() -> None:
    assert {str(settings["name"]) for _, settings in PENALISED.values()} == {*_names()} - {"none"}


def _names() -> tuple[str, ...]:
    found: tuple[str, ...] = get_args(RegulariserConfig.model_fields["name"].annotation)
    return found
