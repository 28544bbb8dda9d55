"""Bonsai's default against the plain ways, at equal latency and equal training.

    python benchmarks/plain_ways.py --folder DIR [--data FASHION_MNIST]      # results/plain_ways.json; goes on row by row
    python benchmarks/plain_ways.py --summarise                             # runs nothing: writes the tables of docs/pruning.md

| way | |
|---|---|
| bonsai | the recipe of `bonsai init`: cut where EPI fires by `bn_gradient`, then a recovery of its own length (`auto`, without a gate to reach) |
| torch-pruning uniform | the trained network, the same ratio of every group; fine-tuning at two rates, of which the better one on validation images counts |
| torch-pruning global | the same with all groups ranked together |
| initialisation | cut before any training, by the same criterion and the same choice of widths as `bonsai` |
| narrower | the same network with fewer channels, trained from the beginning |

Tasks, networks, latency and how training is counted: `case.py`. Every way gets what `bonsai` takes, which is a cycle and half a cycle of fine-tuning. The
plain ways get the largest network within the limit. Rows come seed by seed and budget by budget, so that a part of them is a balanced comparison already.
"""

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product

from arena import RESULTS
from case import Case, Made, Place, parse
from page import write_between
from plain_ways_page import DENSE, MARK, OURS, Key, Row, tables
from rows import go_on, read_rows

FILE = RESULTS / "plain_ways.json"
TASKS, NETWORKS = ("capitals", "fashion", "capitals, 16 pixels"), ("small", "resnet8")
CYCLES, BUDGETS = (9, 27), (0.15, 0.3, 0.5)
WAYS: dict[str, Callable[[Case, float], Made]] = {
    DENSE: Case.dense,
    OURS: Case.bonsai,
    "torch-pruning uniform": Case.uniform,
    "torch-pruning global": Case.ranked,
    "initialisation": Case.initialisation,
    "narrower": Case.narrower,
}


def keys(seeds: int) -> Iterator[Key]:
    """Yield all rows in the order in which they run."""
    for seed, budget, cycle, network, task, way in product(range(seeds), BUDGETS, CYCLES, NETWORKS, TASKS, WAYS):
        yield Key(seed, task, network, cycle, 1 if way == DENSE else budget, way)


def read() -> list[Row]:
    """Return what earlier runs left."""
    return read_rows(FILE, Row)


def main() -> None:
    """Run what is missing, row by row."""
    options = parse("Bonsai's default against the plain ways", {"task": TASKS, "network": NETWORKS, "cycle": CYCLES, "budget": (*BUDGETS, 1.0)})
    if options.summarise:
        write_between(MARK, tables(read()))
        return

    @lru_cache(maxsize=1)
    def case(place: Place) -> Case:
        return Case(place, options.folder, options.data)

    def run(key: Key) -> Row:
        one, started = case(Place(*key[:4])), time.process_time()
        made = WAYS[key.way](one, key.budget)
        return Row(**key._asdict(), seconds=time.process_time() - started, top1=one.bench.top1(made.network), **one.facts(made))

    go_on(FILE, Row, filter(options.allows, keys(options.seeds)), run, options.minutes)


if __name__ == "__main__":
    main()
