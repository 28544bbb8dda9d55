"""Does EPI know the moment? The question of `oracle.py`, in sizes that two cores carry, and for fine-tuning too.

    python benchmarks/best_moment.py --folder DIR      # results/best_moment.json; goes on row by row
    python benchmarks/best_moment.py --summarise       # runs nothing: writes the table of docs/pruning.md

`small` on the two sets of capitals of `case.py`, with their latency models. A network is cut where EPI fires or at a fixed part of the
cycle, and recovers for its own length (`prune.recover.epochs: auto`), so that every moment costs the same training, but for the rounding to whole epochs.

| start | cycle |
|---|---|
| random | 12 epochs |
| trained | 4 epochs of fine-tuning, from the weights at the end of those 12, at the rate of `bonsai init --weights` |
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Literal, NamedTuple, get_args

from arena import RESULTS, mean_interval, shown
from case import Case, Place, parse
from page import signed, write_between
from rows import KeyedRow, go_on, read_rows

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


class Row(KeyedRow):
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
    def key(self) -> Point:
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
    cost = case.facts(made)["cost"]
    return Row(**point._asdict(), epoch=made.before, cycle=bench.recipe.training.epochs, cost=cost, top1=bench.top1(made.network))


def table(rows: Sequence[Row]) -> list[str]:
    """Return both tables: top-1 by moment with how far EPI is ahead of the best of the others, and how far it is ahead of each over all cells."""
    titles = " | ".join(f"**{moment}**" if moment == EPI else moment for moment in MOMENTS)
    head = [
        f"| task, start | criterion | latency | seeds | {titles} | EPI's epoch | EPI ahead of the best |",
        "|---|---|---|---|" + "---|" * (len(MOMENTS) + 2),
    ]
    places = sorted({(row.start, row.task, row.criterion, -row.budget) for row in rows})
    cells = [line for start, task, criterion, budget in places for line in _line(_at(rows, start, task, criterion, -budget))]
    others = [moment for moment in MOMENTS if moment != EPI]
    what = "How far EPI is ahead of each moment, over all pairs of the same task, criterion, latency and seed:"
    pooled = [f"| start | pairs | {' | '.join(others)} |", "|---|---|" + "---|" * len(others)]
    pooled += [line for start in dict.fromkeys(place[0] for place in places) for line in _pool([row for row in rows if row.start == start], others)]
    return [*head, *cells, "", what, "", *pooled]


def _pool(rows: Sequence[Row], others: Sequence[str]) -> list[str]:
    """Return the line of one start, or none while no moment can be compared with EPI's."""
    top1 = {row.key: 100 * row.top1 for row in rows}
    pairs = {m: [found - top1[other] for key, found in top1.items() if key.moment == EPI and (other := key._replace(moment=m)) in top1] for m in others}
    most = max(map(len, pairs.values()))
    return [f"| {rows[0].start} | {most} | {' | '.join(signed(ahead) if ahead else '-' for ahead in pairs.values())} |"] if most else []


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
    options = parse("Does EPI know the moment?", {"task": TASKS, "start": get_args(Start), "criterion": get_args(CriterionTried), "budget": BUDGETS})
    if options.summarise:
        write_between(MARK, table(read()))
        return

    @lru_cache(maxsize=1)
    def case(seed: int, task: str, start: Start) -> Case:
        return Case(Place(seed, task, "small", CYCLE), options.folder, options.data, TUNED if start == "trained" else None)

    go_on(FILE, Row, filter(options.allows, points(options.seeds)), lambda point: run(point, case(*point[:3])), options.minutes)


if __name__ == "__main__":
    main()
