"""Which choices win at tight budgets? Selections, treatments and criteria at 30, 20 and 10 % of the latency, at equal latency and equal training.

    python benchmarks/tight.py --folder DIR [--data FASHION_MNIST]      # results/tight.json; goes on row by row
    python benchmarks/tight.py --summarise                             # runs nothing: writes the table of docs/selection.md

`deeper` of `case.py`, a cycle of 18 epochs, two tasks. All ways but the last two cut where EPI fires for the default, and recover for their own length
(`prune.recover.epochs: auto`), so that they differ in one thing and cost the same.

| way | |
|---|---|
| default | the recipe of `bonsai init`: `bn_gradient`, `value: reciprocal`, one cut |
| value `sum` | the sum of the kept channels' scores |
| uniform | the same share of every group |
| global | one threshold over all groups, magnitude over the group's mean, as Torch-Pruning ranks |
| knapsack | each group charged for its own output channels alone, as HALP does |
| no warm-up | the learning rate does not rise again after the cut (`prune.recover.warmup: 0`) |
| with blocks | residual blocks may leave (`prune.blocks`) |
| in steps | eight linear cuts, 12 iterations apart, chosen again before each |
| distilled | with the dense network at the end of its cycle as teacher, whose training is not counted |
| by `magnitude_l2` | channels and widths by another criterion |
| at random | the default's widths, channels drawn by lot |
| trained, global | Torch-Pruning's global ranking of the trained network, then fine-tuning for as long as costs the same |
| narrower | the same network with fewer channels, trained from the beginning for as long as costs the same |
"""

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from statistics import mean
from typing import NamedTuple

from arena import RESULTS, mean_interval, shown
from case import Case, Made, Place, parse
from page import DOCS, signed, write_between
from rows import TrainedRow, go_on, read_rows

from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_scores
from bonsai.stages.pruning.criteria import Criterion, Normalisation
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.scores import normalise
from bonsai.stages.selection.baselines import global_ranking, one_sided_knapsack, uniform
from bonsai.stages.selection.chooser import Chooser
from bonsai.stages.selection.problem import Problem, Values
from bonsai.stages.selection.reselection import Reselection
from bonsai.stages.selection.terms import Choice
from bonsai.stages.selection.values import values_from_scores
from bonsai.stages.steps.weigh_blocks import weigh_blocks
from bonsai.stages.training.config import DistillConfig

FILE = RESULTS / "tight.json"
MARK, PAGE = "tight budgets", DOCS / "selection.md"
NETWORK, CYCLE = "deeper", 18
TASKS, BUDGETS = ("capitals, 16 pixels", "fashion, 14 pixels"), (0.2, 0.1, 0.3)
STEPS = ScheduleConfig(name="linear", steps=8, iterations=12)
Selection = Callable[[Case, Checkpoint, Reselection], Widths]


class Key(NamedTuple):
    """What tells one row from the others: the attributes of `Row` of the same names."""

    seed: int
    task: str
    budget: float
    way: str


class Row(TrainedRow):
    """One network. A teacher's training is not counted.

    Attributes:
        budget: Latency that it may have, as a fraction of the dense network's.
        widths: Channels by group; 0 in a block that left.
    """

    seed: int
    task: str
    budget: float
    way: str
    widths: dict[str, int]

    @property
    def key(self) -> Key:
        """What tells it from the others."""
        return Key(self.seed, self.task, self.budget, self.way)


def scored(case: Case, segment: Checkpoint, limit: Reselection, criterion: Criterion, normalisation: Normalisation = "none") -> Values:
    """Return the sums of the kept channels' scores."""
    scores = normalise(load_scores(segment, criterion), case.bench.network.groups, normalisation)
    return values_from_scores({name: scores[name].tolist() for name in limit.options}, limit.options)


def of_the_field(select: Callable[[Problem], Choice], criterion: Criterion, normalisation: Normalisation = "none") -> Selection:
    """Return a selection that takes values by group and a budget."""

    def widths(case: Case, segment: Checkpoint, limit: Reselection) -> Widths:
        terms = limit.latency.terms(limit.options)
        return terms.widths_at(select(Problem.of(scored(case, segment, limit, criterion, normalisation), terms, limit.limit_ms)))

    return widths


def default_widths(case: Case, segment: Checkpoint, limit: Reselection) -> Widths:
    """Choose as the default does."""
    return limit.choose(case.bench.scores(segment, "bn_gradient"), case.bench.network.groups)


def by_sum(case: Case, segment: Checkpoint, limit: Reselection) -> Widths:
    """Choose by the sum of the scores."""
    return default_widths(case, segment, limit.model_copy(update={"value": "sum"}))


def with_blocks(case: Case, segment: Checkpoint, limit: Reselection) -> Widths:
    """Choose with the blocks that may leave, each worth what its absence costs."""
    bench, options = case.bench, case.measured.model.options
    losses = bench.store.run(weigh_blocks, segment=segment, dataset=bench.dataset, training=bench.recipe.training, criterion="bn_gradient")
    config = bench.recipe.prune.model_copy(update={"margin": 0.0})
    chooser = Chooser(bench.network.groups, limit.operators, options, limit.latency, limit.limit_ms, config)
    return chooser.select(load_scores(segment, "bn_gradient"), losses).widths


def cut(
    criterion: Criterion = "bn_gradient",
    widths: Selection | None = None,
    schedule: ScheduleConfig | None = None,
    distill: DistillConfig | None = None,
    warmup: float | None = None,
) -> Callable[[Case, float], Made]:
    """Return a way that cuts where the default does and recovers for as long as `auto` says."""

    def way(case: Case, budget: float) -> Made:
        chosen = None if widths is None else lambda segment, limit: widths(case, segment, limit)
        step, length = case.epi(budget, "bn_gradient"), case.bench.recipe.prune.recover.model_copy(update={"warmup": warmup})
        return case.cut_at(step, budget, criterion, length, widths=chosen, schedule=schedule, distill=distill)

    return way


DEFAULT = "default"
WAYS: dict[str, Callable[[Case, float], Made]] = {
    DEFAULT: Case.bonsai,
    "value `sum`": cut(widths=by_sum),
    "uniform": cut(widths=of_the_field(uniform, "magnitude_l2")),
    "global": cut("magnitude_l2", of_the_field(global_ranking, "magnitude_l2", "local")),
    "knapsack": cut(widths=of_the_field(one_sided_knapsack, "bn_gradient")),
    "no warm-up": cut(warmup=0.0),
    "with blocks": cut(widths=with_blocks),
    "in steps": cut(schedule=STEPS),
    "distilled": cut(distill=DistillConfig()),
    "by `magnitude_l2`": cut("magnitude_l2"),
    "at random": cut("random", default_widths),
    "trained, global": Case.ranked,
    "narrower": Case.narrower,
}
CUT_ELSEWHERE = ("trained, global", "narrower")
"""Ways that do not cut where the default does."""


def keys(seeds: int) -> Iterator[Key]:
    """Yield all rows in the order in which they run."""
    for key in product(range(seeds), BUDGETS, TASKS, WAYS):
        yield Key(key[0], key[2], key[1], key[3])


def table(rows: list[Row]) -> list[str]:
    """Return the table: top-1 of every way by task and budget, and how far it is ahead of the default, there and over both tasks."""
    places = [(task, budget) for budget in sorted(BUDGETS, reverse=True) for task in TASKS if any((row.task, row.budget) == (task, budget) for row in rows)]
    if not places:
        return ["No row has run yet."]
    budgets = list(dict.fromkeys(budget for _, budget in places))
    titles = [*(f"{task}, {budget:.0%}" for task, budget in places), *(f"both tasks, {budget:.0%}" for budget in budgets)]

    def line(way: str) -> str:
        return f"| {' | '.join([way, *(_cell(rows, way, *place) for place in places), *(_pool(rows, way, budget) for budget in budgets)])} |"

    return [f"| way | {' | '.join(titles)} |", "|---|" + "---|" * len(titles), *(line(way) for way in WAYS if any(row.way == way for row in rows))]


def _cell(rows: list[Row], way: str, task: str, budget: float) -> str:
    """Return the mean of a way, and over the seeds by how much it is ahead of the default."""
    here = [row for row in rows if (row.task, row.budget) == (task, budget)]
    found = [100 * row.top1 for row in here if row.way == way]
    if not found:
        return "-"
    ahead = _ahead(here, way)
    return shown(mean_interval(found)) + (f" ({signed(ahead)})" if ahead else "")


def _pool(rows: list[Row], way: str, budget: float) -> str:
    """Return by how much a way is ahead of the default over the tasks and seeds in which it ran, and the mean part of the limit that it uses."""
    here = [row for row in rows if row.budget == budget]
    used, ahead = [row.latency / budget for row in here if row.way == way], _ahead(here, way)
    if not used:
        return "-"
    return f"{signed(ahead)} ({len(ahead)} pairs; {mean(used):.0%})" if ahead else f"({mean(used):.0%})"


def _ahead(rows: list[Row], way: str) -> list[float]:
    """Return the points of top-1 by which a way is ahead of the default, pair by pair; nothing for the default."""
    defaults = {row.key: row.top1 for row in rows if row.way == DEFAULT != way}
    return [100 * (row.top1 - defaults[key]) for row in rows if row.way == way and (key := row.key._replace(way=DEFAULT)) in defaults]


def read() -> list[Row]:
    """Return what earlier runs left."""
    return read_rows(FILE, Row)


def main() -> None:
    """Run what is missing, row by row."""
    options = parse("Which choices win at tight budgets?", {"task": TASKS, "budget": BUDGETS, "way": tuple(WAYS)})
    if options.summarise:
        write_between(MARK, table(read()), PAGE)
        return

    @lru_cache(maxsize=1)
    def case(seed: int, task: str) -> Case:
        return Case(Place(seed, task, NETWORK, CYCLE), options.folder, options.data)

    def run(key: Key) -> Row:
        one, started = case(key.seed, key.task), time.process_time()
        made = WAYS[key.way](one, key.budget)
        seconds = time.process_time() - started
        return Row(**key._asdict(), widths=one.widths(made.network), top1=one.bench.top1(made.network), seconds=seconds, **one.facts(made))

    go_on(FILE, Row, filter(options.allows, keys(options.seeds)), run, options.minutes)


if __name__ == "__main__":
    main()
