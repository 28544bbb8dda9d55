"""Does EPI know the moment? The question of `oracle.py`, in sizes that two cores carry, and for fine-tuning too.

    python benchmarks/best_moment.py --folder DIR      # results/best_moment.json; goes on row by row
    python benchmarks/best_moment.py --summarise       # runs nothing: writes the table of docs/pruning.md

`small` on the two sets of capitals of `plain_ways.py`, with its latency models and its folder. A network is cut where EPI fires or at a fixed part of the
cycle, and recovers for its own length (`prune.recover.epochs: auto`), so that every moment costs the same training, but for the rounding to whole epochs.

| start | cycle |
|---|---|
| random | 12 epochs |
| trained | 4 epochs of fine-tuning, from the weights at the end of those 12, at the rate of `bonsai init --weights` |
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from arena import HERE, RESULTS, mean_interval, shown
from plain_ways import Case, put_network
from plain_ways_page import OURS, Key, signed, write_between
from rows import read_rows, save_rows

from bonsai.profiles.located_yaml import Record
from bonsai.stages.pruning.recovery import LEAST_SHARE

FILE = RESULTS / "best_moment.json"
MARK = "best moment"
EPI = "epi"
MOMENTS = ("0", EPI, "0.1", "0.25", "0.5", "0.75")
"""Parts of the cycle that are over at the cut."""
Start = Literal["random", "trained"]
CriterionTried = Literal["bn_gradient", "magnitude_l2"]
TASKS, BUDGETS = ("capitals, 16 pixels", "capitals"), (0.3, 0.15, 0.5)
CYCLE, TUNED = 12, 4


class Point(NamedTuple):
    """What tells one row from the others: the attributes of `Row` of the same names."""

    seed: int
    task: str
    start: Start
    criterion: CriterionTried
    budget: float
    moment: str


class Row(Record):
    """One network.

    Attributes:
        budget: Latency that it may have, as a fraction of the dense network's.
        moment: Part of the cycle, 0-1, that was over at the cut, or ``epi``.
        epoch: When it was cut.
        cycle: Epochs of the cycle.
        cost: Training in dense epochs, without that of the weights that a fine-tuning starts from.
        top1: On the test images, 0-1.
    """

    seed: int
    task: str
    start: Start
    criterion: CriterionTried
    budget: float
    moment: str
    epoch: float
    cycle: int
    cost: float
    top1: float

    @property
    def point(self) -> Point:
        """What tells it from the others."""
        return Point(self.seed, self.task, self.start, self.criterion, self.budget, self.moment)


def points(seeds: int) -> Iterator[Point]:
    """Yield all rows in the order in which they run."""
    order = product(range(seeds), BUDGETS, TASKS, get_args(Start), get_args(CriterionTried), MOMENTS)
    for seed, budget, task, start, criterion, moment in order:
        yield Point(seed, task, start, criterion, budget, moment)


def run(point: Point, case: Case) -> Row:
    """Cut at one moment, train on and score."""
    bench = case.bench
    step = case.epi(point.budget, point.criterion) if point.moment == EPI else round(float(point.moment) * bench.total)
    made = case.cut_at(step, point.budget, point.criterion, bench.recipe.prune.recover)
    cost = made.before + max(case.share(made.network), LEAST_SHARE) * made.after
    return Row(**point._asdict(), epoch=made.before, cycle=bench.recipe.training.epochs, cost=cost, top1=bench.top1(made.network))


def table(rows: Sequence[Row]) -> list[str]:
    """Return the table: top-1 by moment, and how far EPI is ahead of the best of the others."""
    titles = " | ".join(f"**{moment}**" if moment == EPI else moment for moment in MOMENTS)
    head = [
        f"| task, start | criterion | latency | seeds | {titles} | EPI's epoch | EPI ahead of the best |",
        "|---|---|---|---|" + "---|" * (len(MOMENTS) + 2),
    ]
    places = sorted({(row.start, row.task, row.criterion, -row.budget) for row in rows})
    return [*head, *(line for start, task, criterion, budget in places for line in _line(_at(rows, start, task, criterion, -budget)))]


def _at(rows: Iterable[Row], start: Start, task: str, criterion: CriterionTried, budget: float) -> list[Row]:
    return [row for row in rows if (row.start, row.task, row.criterion, row.budget) == (start, task, criterion, budget)]


def _line(rows: Sequence[Row]) -> list[str]:
    """Return the line of one cell, or none while no moment can be compared with EPI's."""
    found = {moment: {row.seed: row for row in rows if row.moment == moment} for moment in MOMENTS}
    top1 = {moment: mean_interval([100 * row.top1 for row in by_seed.values()]) for moment, by_seed in found.items() if by_seed}
    others = [moment for moment in top1 if moment != EPI and found[moment].keys() & found[EPI].keys()]
    if not others:
        return []
    best = max(others, key=lambda moment: top1[moment][0])
    ahead = [100 * (row.top1 - found[best][seed].top1) for seed, row in found[EPI].items() if seed in found[best]]
    cells = " | ".join(shown(top1[moment]) if moment in top1 else "-" for moment in MOMENTS)
    epochs = ", ".join(f"{row.epoch:.2f}" for row in found[EPI].values())
    one = rows[0]
    return [f"| {one.task}, {one.start} | `{one.criterion}` | {one.budget:.0%} | {len(found[EPI])} | {cells} | {epochs} of {one.cycle} | {signed(ahead)} |"]


def read() -> list[Row]:
    """Return what earlier runs left."""
    return read_rows(FILE, Row)


def main() -> None:
    """Run what is missing, row by row."""
    parser = argparse.ArgumentParser(description="Does EPI know the moment?")
    parser.add_argument("--folder", type=Path, default=None, help="keep networks and the store here, or go on with those of plain_ways.py")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=None, help="begin no row after so many minutes")
    parser.add_argument("--summarise", action="store_true", help="run nothing: write the table of docs/pruning.md")
    options = parser.parse_args()
    if options.summarise:
        write_between(MARK, table(read()))
        return
    torch.set_num_threads(1)
    folder = put_network(options.folder or Path(tempfile.mkdtemp(prefix="best-moment-")))
    began = time.monotonic()
    os.chdir(HERE)  # where `capitals` is imported from
    rows, case, made_for = read(), None, None
    known = {row.point for row in rows}
    for point in points(options.seeds):
        if point in known:
            continue
        if options.minutes is not None and time.monotonic() - began > 60 * options.minutes:
            return
        if case is None or made_for != point[:3]:
            key = Key(point.seed, point.task, "small", CYCLE, point.budget, OURS)
            case, made_for = Case(key, folder, folder, TUNED if point.start == "trained" else None), point[:3]
        rows.append(run(point, case))
        print(rows[-1].model_dump_json(), flush=True)
        save_rows(FILE, rows)


if __name__ == "__main__":
    main()
