"""The rows of `plain_ways.py` and their tables, and the place of a table in `docs/pruning.md`."""

import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from arena import mean_interval, shown
from rows import TrainedRow

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "pruning.md"
MARK = "plain ways"
DENSE, OURS = "dense", "bonsai"
PLAIN = {
    "torch-pruning uniform": "trained, uniform",
    "torch-pruning global": "trained, global",
    "initialisation": "at initialisation",
    "narrower": "narrower network",
}
"""The other ways, with their titles."""


class Key(NamedTuple):
    """What tells one row from the others: the attributes of `Row` of the same names."""

    seed: int
    task: str
    network: str
    cycle: int
    budget: float
    way: str


class Row(TrainedRow):
    """One network.

    Attributes:
        cycle: Epochs of the dense network's learning-rate cycle.
        budget: Latency that it may have, as a fraction of the dense network's; 1 for that one.
    """

    seed: int
    task: str
    network: str
    cycle: int
    budget: float
    way: str

    @property
    def key(self) -> Key:
        """What tells it from the others."""
        return Key(self.seed, self.task, self.network, self.cycle, self.budget, self.way)


def write_between(mark: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Write lines between the two comments of a page that name the mark."""
    text, (first, last) = page.read_text(encoding="utf-8"), comments(mark)
    new = "\n".join([first, *lines, last])
    page.write_text(re.sub(f"{first}.*{last}", lambda _: new, text, flags=re.DOTALL), encoding="utf-8")


def between(mark: str, page: Path = PAGE) -> list[str]:
    """Return the lines between those comments."""
    first, last = comments(mark)
    return page.read_text(encoding="utf-8").split(first)[1].split(last)[0].strip("\n").split("\n")


def comments(mark: str) -> tuple[str, str]:
    """Return the comments around a table."""
    return f"<!-- {mark} -->", f"<!-- /{mark} -->"


def tables(rows: Sequence[Row]) -> list[str]:
    """Return the lines of both tables."""
    places = dict.fromkeys((row.task, row.network) for row in rows)
    cycles, budgets = sorted({row.cycle for row in rows}), sorted({row.budget for row in rows if row.way != DENSE}, reverse=True)
    titles = " | ".join(PLAIN.values())
    head = [f"| task, network | cycle | latency | seeds | dense | **Bonsai's default** | {titles} |", "|---|---|---|---|---|---|" + "---|" * len(PLAIN)]
    cells = [line for (task, network), cycle, budget in product(places, cycles, budgets) for line in _cell(_at(rows, task, network, cycle, budget))]
    pooled = [f"| cycle | latency | pairs | **Bonsai's default** | {titles} |", "|---|---|---|---|" + "---|" * len(PLAIN)]
    pooled += [line for cycle, budget in product(cycles, budgets) for line in _pool(rows, cycle, budget)]
    what = "How far Bonsai's default is ahead over all pairs of the same task, network and seed; in brackets the part of the allowed latency that is used:"
    return [*head, *cells, "", what, "", *pooled]


def _at(rows: Iterable[Row], task: str, network: str, cycle: int, budget: float) -> list[Row]:
    """Return the rows of one cell, with those of its dense network."""
    return [r for r in rows if (r.task, r.network, r.cycle) == (task, network, cycle) and r.budget in (1, budget)]


def _cell(rows: Sequence[Row]) -> list[str]:
    """Return the line of one cell, or none if Bonsai's row has not run."""
    found = {way: {row.seed: row for row in rows if row.way == way} for way in (DENSE, OURS, *PLAIN)}
    if not found[OURS]:
        return []
    one = next(iter(found[OURS].values()))
    dense, ours = (shown(mean_interval([100 * row.top1 for row in found[way].values()])) for way in (DENSE, OURS))
    others = []
    for way in PLAIN:
        ahead = _ahead(rows, way)
        top1 = [100 * row.top1 for row in found[way].values()]
        others.append(f"{shown(mean_interval(top1))} ({signed(ahead)})" if ahead else "-")
    return [f"| {one.task}, {one.network} | {one.cycle} | {one.budget:.0%} | {len(found[OURS])} | {dense} | **{ours}** | {' | '.join(others)} |"]


def _pool(rows: Sequence[Row], cycle: int, budget: float) -> list[str]:
    """Return the line of one cycle and budget over tasks, networks and seeds."""
    here = [row for row in rows if (row.cycle, row.budget) == (cycle, budget)]
    ahead, used = {way: _ahead(here, way) for way in PLAIN}, {way: _used(here, way) for way in (OURS, *PLAIN)}
    most = max(map(len, ahead.values()))
    others = [f"{signed(ahead[way])} ({used[way]})" if ahead[way] else "-" for way in PLAIN]
    return [f"| {cycle} | {budget:.0%} | {most} | ({used[OURS]}) | {' | '.join(others)} |"] if most else []


def _used(rows: Sequence[Row], way: str) -> str:
    """Return the mean latency of a way over what it may have."""
    found = [row.latency / row.budget for row in rows if row.way == way]
    return f"{sum(found) / len(found):.2f}" if found else "-"


def _ahead(rows: Sequence[Row], way: str) -> list[float]:
    """Return the points of top-1 by which Bonsai's default is ahead of a way, pair by pair."""
    ours = {row.key._replace(way=way): row.top1 for row in rows if row.way == OURS}
    return [100 * (ours[row.key] - row.top1) for row in rows if row.way == way and row.key in ours]


def signed(ahead: Sequence[float]) -> str:
    """Return a difference with its sign and its interval."""
    interval = mean_interval(ahead)
    return f"{'+' if interval[0] >= 0 else ''}{shown(interval)}"
