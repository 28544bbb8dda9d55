"""The rows of `plain_ways.py` and their tables."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

from arena import mean_interval, shown
from page import signed
from rows import TrainedRow

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


def tables(rows: Sequence[Row]) -> list[str]:
    """Return the lines of both tables."""
    places, networks = dict.fromkeys((row.task, row.network) for row in rows), dict.fromkeys(row.network for row in rows)
    cycles, budgets = sorted({row.cycle for row in rows}), sorted({row.budget for row in rows if row.way != DENSE}, reverse=True)
    titles = " | ".join(PLAIN.values())
    head = [f"| task, network | cycle | latency | seeds | dense | **Bonsai's default** | {titles} |", "|---|---|---|---|---|---|" + "---|" * len(PLAIN)]
    cells = [line for (task, network), cycle, budget in product(places, cycles, budgets) for line in _cell(_at(rows, task, network, cycle, budget))]
    pooled = [f"| network | cycle | latency | pairs | **Bonsai's default** | {titles} |", "|---|---|---|---|---|" + "---|" * len(PLAIN)]
    pooled += [line for place in product(networks, cycles, budgets) for line in _pool(rows, *place)]
    what = "How far Bonsai's default is ahead over all pairs of the same task and seed; in brackets the part of the allowed latency that is used:"
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
    dense, ours = (_top1(found[way].values()) for way in (DENSE, OURS))
    others = []
    for way in PLAIN:
        ahead = _ahead(rows, way)
        others.append(f"{_top1(found[way].values())} ({signed(ahead)})" if ahead else "-")
    return [f"| {one.task}, {one.network} | {one.cycle} | {one.budget:.0%} | {len(found[OURS])} | {dense} | **{ours}** | {' | '.join(others)} |"]


def _top1(rows: Iterable[Row]) -> str:
    """Return the mean top-1 in percent with its interval, or a dash for no row."""
    found = [100 * row.top1 for row in rows]
    return shown(mean_interval(found)) if found else "-"


def _pool(rows: Sequence[Row], network: str, cycle: int, budget: float) -> list[str]:
    """Return the line of one network, cycle and budget over tasks and seeds."""
    here = [row for row in rows if (row.network, row.cycle, row.budget) == (network, cycle, budget)]
    ahead, used = {way: _ahead(here, way) for way in PLAIN}, {way: _used(here, way) for way in (OURS, *PLAIN)}
    most = max(map(len, ahead.values()))
    others = [f"{signed(ahead[way])} ({used[way]})" if ahead[way] else "-" for way in PLAIN]
    return [f"| {network} | {cycle} | {budget:.0%} | {most} | ({used[OURS]}) | {' | '.join(others)} |"] if most else []


def _used(rows: Sequence[Row], way: str) -> str:
    """Return the mean latency of a way over what it may have."""
    found = [row.latency / row.budget for row in rows if row.way == way]
    return f"{sum(found) / len(found):.2f}" if found else "-"


def _ahead(rows: Sequence[Row], way: str) -> list[float]:
    """Return the points of top-1 by which Bonsai's default is ahead of a way, pair by pair."""
    ours = {row.key._replace(way=way): row.top1 for row in rows if row.way == OURS}
    return [100 * (ours[row.key] - row.top1) for row in rows if row.way == way and row.key in ours]
