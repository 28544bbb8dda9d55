"""What pruning early saves, everything included: whole commands beside train-prune-finetune, for one target and for four.

    python benchmarks/saved.py --folder DIR      # results/saved.json; goes on row by row; more than an hour of one core for a seed (an estimate)
    python benchmarks/saved.py --summarise       # runs nothing: writes the table of docs/pruning.md

Every row is a `bonsai run` of its own with an empty store: images, latency tables, fitted latency models, training, recovery, export, engine, final
timing, report. Its processor time counts, of all its processes. The network is `small` of `case.py` on the 26 capitals at 32 pixels, a cycle of 18
epochs, FP32 engines at batch 8. No way trains a dense reference (`training.reference: none`): train-prune-finetune has one on its way, the other has not.

| way | lengths |
|---|---|
| early | pruned where EPI fires; the recovery takes so many cycles, or `auto` |
| trained | the same command with `prune.policy: trained`: the whole cycle first, then so many cycles of fine-tuning at 0.3 of the highest rate |
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import yaml
from arena import HERE, RESULTS, mean_interval, shown
from case import BATCH, LR, MULTIPLE, NETWORKS, RECIPE, TASKS, parse
from page import write_between
from rows import KeyedRow, go_on, read_rows

from bonsai.stages.delivery.contents import PackageManifest
from bonsai.stages.store.manifest import MANIFEST

FILE = RESULTS / "saved.json"
MARK = "saved"
TASK, NETWORK, CYCLE = "capitals", "small", 18
TARGETS = {1: (0.3,), 4: (0.5, 0.4, 0.3, 0.2)}
"""Budgets by number of targets, as fractions of the dense latency."""
WAYS: dict[str, tuple[float | str, ...]] = {"early": (1, "auto"), "trained": (0.5, 1)}
"""Lengths of each way in cycles."""
FINETUNE_RATE = 0.3


class Key(NamedTuple):
    """What tells one row from the others: the attributes of `Row` of the same names."""

    seed: int
    targets: int
    way: str
    length: float | str


class Row(KeyedRow):
    """One command.

    Attributes:
        length: Cycles after the cut, or ``auto``.
        top1: On the test images, by the engine, 0-1, for each target.
        latency: Over the dense engine's, measured, for each target.
        cpu_seconds: Processor time of all processes of the command.
        wall_seconds: Until it ended.
    """

    seed: int
    targets: int
    way: str
    length: float | str
    top1: tuple[float, ...]
    latency: tuple[float, ...]
    cpu_seconds: float
    wall_seconds: float

    @property
    def key(self) -> Key:
        """What tells it from the others."""
        return Key(self.seed, self.targets, self.way, self.length)


def keys(seeds: int) -> Iterator[Key]:
    """Yield all rows in the order in which they run."""
    for seed, targets in product(range(seeds), TARGETS):
        for way, lengths in WAYS.items():
            yield from (Key(seed, targets, way, length) for length in lengths)


def run(key: Key, networks: Path) -> Row:
    """Run one command in a folder of its own."""
    model, width = NETWORKS[NETWORK]
    facts = {"model": model, "width": width, "seed": key.seed, "epochs": CYCLE, "lr": LR, "data": TASKS[TASK]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in (*networks.glob("*.py"), HERE / "capitals.py"):
            (folder / file.name).write_text(file.read_text())
        recipe = yaml.safe_load(RECIPE.format(**facts))
        recipe["training"]["reference"] = "none"
        recipe["prune"] |= choices(key)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        profiles = [write_profile(folder, budget) for budget in TARGETS[key.targets]]
        command = [sys.executable, "-m", "bonsai", "run", "recipe.yaml", *(f"--profile={profile}" for profile in profiles), "--store", "store"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode in (0, 3), done.stderr[-3000:]  # 3: a budget that is missed or undecided; `latency` tells how far
        figures = [figures_of(folder / "store" / "packages" / f"plain-ways--{Path(profile).stem}") for profile in profiles]
    top1, latency = zip(*figures, strict=True)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Row(**key._asdict(), top1=top1, latency=latency, cpu_seconds=cpu, wall_seconds=wall)


def figures_of(package: Path) -> tuple[float, float]:
    """Return the test top-1 of a package's engine, and its latency over the dense engine's."""
    rows = PackageManifest.model_validate_json((package / MANIFEST).read_text()).metrics
    dense, shipped = next(row for row in rows if row.network == "dense"), next(row for row in rows if row.shipped)
    assert dense.latency and shipped.latency
    return shipped.judged.value, shipped.latency.p50 / dense.latency.p50


def choices(key: Key) -> dict[str, object]:
    """Return the keys under `prune` that a way sets."""
    if key.way == "early":
        return {"recover": {"epochs": key.length if key.length == "auto" else round(float(key.length) * CYCLE)}}
    return {"recover": {}, "policy": {"name": "trained", "finetune": {"epochs": max(round(float(key.length) * CYCLE), 1), "lr": FINETUNE_RATE * LR}}}


def write_profile(folder: Path, budget: float) -> str:
    """Write a profile of this machine, and return its file's name."""
    name = f"at{round(100 * budget)}"
    target = {"precision": "fp32", "batch": BATCH}
    asked = {"target": target, "channel_multiple": dict.fromkeys(("fp32", "int8"), MULTIPLE), "budget": {"latency": budget}, "gates": {"max_drop": None}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"extends": "local-cpu", "name": name, **asked}))
    return f"{name}.yaml"


def table(rows: Sequence[Row]) -> list[str]:
    """Return the table: top-1 and processor time of every way and length, and the time over that of train-prune-finetune with half a cycle."""
    lines = [
        "| targets | way | cycles after the cut | seeds | test top-1, mean over the targets | processor time, as a share of *trained* with 0.5 |",
        "|---|---|---|---|---|---|",
    ]
    for targets, (way, lengths) in product(TARGETS, WAYS.items()):
        for length in lengths:
            found = {row.seed: row for row in rows if row.key[1:] == (targets, way, length)}
            base = {row.seed: row.cpu_seconds for row in rows if row.key[1:] == (targets, "trained", 0.5)}
            if not found:
                continue
            top1 = shown(mean_interval([100 * sum(row.top1) / len(row.top1) for row in found.values()]))
            ratios = [row.cpu_seconds / base[seed] for seed, row in found.items() if seed in base]
            lines.append(f"| {targets} | {way} | {length} | {len(found)} | {top1} | {shown(mean_interval(ratios)) if ratios else '-'} |")
    return lines


def read() -> list[Row]:
    """Return what earlier runs left."""
    return read_rows(FILE, Row)


def main() -> None:
    """Run what is missing, row by row."""
    options = parse("What pruning early saves, everything included", {"targets": tuple(TARGETS), "way": tuple(WAYS)})
    if options.summarise:
        write_between(MARK, table(read()))
        return
    go_on(FILE, Row, filter(options.allows, keys(options.seeds)), lambda key: run(key, options.folder), options.minutes)


if __name__ == "__main__":
    main()
