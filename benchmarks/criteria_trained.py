"""What to prune a trained network by: every criterion and regulariser right after the cut, and after a short fine-tuning.

    python benchmarks/criteria_trained.py --folder DIR [--data FASHION_MNIST]      # results/criteria_trained.json; goes on row by row
    python benchmarks/criteria_trained.py --summarise                             # runs nothing: writes the table of docs/pruning.md

The network of `tight.py`, trained for 18 epochs on its two tasks, is cut to 50, 30 and 10 % of the latency in one shot. BatchNorm's statistics are taken
anew, and it is fine-tuned for 4 epochs at 0.3 of the cycle's learning rate. The criterion ranks the channels, and its scores choose the widths too, as
`prune.criterion` does. `criteria.py` compares the same criteria after an early cut and a long recovery.

| way | |
|---|---|
| a criterion | the dense training without a penalty |
| a criterion, a regulariser | the dense training with that penalty, which is made for the criterion |
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import get_args

from arena import RESULTS
from case import FINETUNE_RATES, LR, Case, Place, parse
from page import signed, write_between
from rows import KeyedRow, go_on, read_rows
from tight import CYCLE, NETWORK, TASKS, Key

from bonsai.stages.networks.checkpoints import load_network
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.policy import FinetuneConfig, RecoverConfig

FILE = RESULTS / "criteria_trained.json"
MARK = "criteria of a trained network"
BUDGETS = (0.3, 0.1, 0.5)
FINETUNE = FinetuneConfig(epochs=4, lr=FINETUNE_RATES[0] * LR)
BASE = "magnitude_l2"
"""The way that the others are compared with."""
PENALISED: dict[str, tuple[Criterion, dict[str, object]]] = {
    "magnitude_l2, group_lasso": ("magnitude_l2", {"name": "group_lasso", "strength": 3e-5}),
    "bn_scale, bn_l1": ("bn_scale", {"name": "bn_l1", "strength": 1e-3}),
    "magnitude_l2, growing": ("magnitude_l2", {"name": "growing", "strength": 1e-4, "growth": 1e-4, "every": 10}),
}


class Row(KeyedRow):
    """One network. Every top-1 is of the test images, 0-1.

    Attributes:
        budget: Latency that it may have, as a fraction of the dense network's.
        dense: Top-1 of the trained network.
        after_cut: Top-1 right after the cut, BatchNorm's statistics taken anew.
        tuned: Top-1 after the fine-tuning.
    """

    seed: int
    task: str
    budget: float
    way: str
    dense: float
    after_cut: float
    tuned: float

    @property
    def key(self) -> Key:
        """What tells it from the others."""
        return Key(self.seed, self.task, self.budget, self.way)


def keys(seeds: int) -> Iterator[Key]:
    """Yield all rows in the order in which they run."""
    for seed, task, ways in product(range(seeds), TASKS, (get_args(Criterion), *((way,) for way in PENALISED))):
        yield from (Key(seed, task, budget, way) for budget, way in product(BUDGETS, ways))


def run(key: Key, case: Case) -> Row:
    """Cut the trained network, score it, fine-tune it and score it again."""
    criterion: Criterion = PENALISED[key.way][0] if key.way in PENALISED else key.way  # type: ignore[assignment]  # the other ways are criteria
    bench, limit = case.bench, case.device.within(key.budget, "none")
    segment = bench.segment(bench.total)
    cut = bench.cut(segment, limit.choose(bench.scores(segment, criterion), bench.network.groups), criterion, FINETUNE)
    tuned = bench.recover(cut, RecoverConfig(), FINETUNE)
    dense, after_cut, after = (bench.top1(load_network(found)) for found in (segment, cut, tuned))
    return Row(**key._asdict(), dense=dense, after_cut=after_cut, tuned=after)


def table(rows: Sequence[Row]) -> list[str]:
    """Return the table: how far every way is ahead of the base, over the pairs of the same task and seed, right after the cut and after the fine-tuning."""
    budgets = sorted({row.budget for row in rows}, reverse=True)
    if not budgets:
        return ["No row has run yet."]
    titles = " | ".join(f"{budget:.0%}: after the cut | {budget:.0%}: fine-tuned" for budget in budgets)
    found = {
        way: [_difference(rows, way, budget, name) for budget in budgets for name in ("after_cut", "tuned")] for way in dict.fromkeys(row.way for row in rows)
    }
    ordered = sorted(found, key=lambda way: -sum(sum(pairs) / len(pairs) for pairs in found[way] if pairs))
    lines = [f"| way | dense | pairs | {titles} |", "|---|---|---|" + "---|" * (2 * len(budgets))]
    for way in ordered:
        here = {budget: [row for row in rows if (row.way, row.budget) == (way, budget)] for budget in budgets}
        cells = [signed(pairs) if pairs else "-" for pairs in found[way]]
        if way == BASE:
            cells = [_mean(here[budget], name) for budget in budgets for name in ("after_cut", "tuned")]
        lines.append(f"| `{way}` | {_mean(here[budgets[0]], 'dense')} | {max(map(len, found[way]))} | {' | '.join(cells)} |")
    return lines


def _mean(rows: Sequence[Row], name: str) -> str:
    """Return a mean over tasks and seeds in percent. It has no interval, since the tasks differ."""
    return f"{100 * sum(getattr(row, name) for row in rows) / len(rows):.2f}" if rows else "-"


def _difference(rows: Sequence[Row], way: str, budget: float, name: str) -> list[float]:
    """Return how far a way is ahead of the base, in points, by task and seed."""
    here = {row.key: getattr(row, name) for row in rows if row.budget == budget}
    return [100 * (top1 - here[base]) for key, top1 in here.items() if key.way == way and (base := key._replace(way=BASE)) in here]


def read() -> list[Row]:
    """Return what earlier runs left."""
    return read_rows(FILE, Row)


def main() -> None:
    """Run what is missing, row by row."""
    options = parse("What to prune a trained network by", {"task": TASKS, "budget": BUDGETS, "way": (*get_args(Criterion), *PENALISED)})
    if options.summarise:
        write_between(MARK, table(read()))
        return

    @lru_cache(maxsize=1)
    def case(seed: int, task: str, regularised: str | None) -> Case:
        changes = {f"prune.regulariser.{name}": value for name, value in PENALISED[regularised][1].items()} if regularised else {}
        return Case(Place(seed, task, NETWORK, CYCLE), options.folder, options.data, changes=changes)

    def row(key: Key) -> Row:
        return run(key, case(key.seed, key.task, key.way if key.way in PENALISED else None))

    go_on(FILE, Row, filter(options.allows, keys(options.seeds)), row, options.minutes)


if __name__ == "__main__":
    main()
