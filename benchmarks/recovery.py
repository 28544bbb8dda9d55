"""How long to recover: the recipe that `bonsai init` writes with a fixed length, one and a half cycles, and with `prune.recover.epochs: auto`.

    python benchmarks/recovery.py [--seeds 2 --minutes 30]      # results/recovery.json

Three sets as folders of images, about 6,000 for training each, and two networks: the one that `init` writes (`small`), and `resnet8`. `init` writes
recipe and gate for each. The network is pruned where EPI fires, to 38 % of the dense network's MACs, which takes about 0.4 of its latency; nothing is
timed. Both ways share trunk, moment and widths. Networks are judged in FP32 on 4,000 test images by the gate's own interval.

| set | what |
|---|---|
| letters | 40 drawn letters of 48 pixels (`letters.py`) |
| glyphs | 62 drawn letters and digits of 32 pixels (`stages/data/glyphs.py`), of which some can hardly be told apart |
| fashion | Fashion-MNIST, 10 classes of 28 pixels; `--fashion` is the folder of its four .gz files, which Debian's `dataset-fashion-mnist` brings |

A run that was stopped goes on from the outcomes that it has written.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fashion
import torch
from arena import mean_interval
from letters import draw_letters
from moments import SameMacs
from PIL import Image
from torch import nn

from bonsai.pipeline.starting.scaffold import Ask, scaffold
from bonsai.profiles.loader import load_profile
from bonsai.profiles.located_yaml import Record
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.glyphs import load_glyphs
from bonsai.stages.networks.calling import evaluating, outputs_of
from bonsai.stages.networks.checkpoints import load_network
from bonsai.stages.pruning.policy import RecoverConfig
from bonsai.stages.pruning.recovery import Goal
from bonsai.stages.steps.recover import cost_of, recover
from bonsai.stages.store.manifest import host_facts
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.tasks.task import Statistics, join
from bonsai.stages.training.batches import load_split
from bonsai.stages.training.evaluation import to_arrays

FILE = Path(__file__).parent / "results" / "recovery.json"
NETWORKS = {"small": None, "resnet8": "resnet8"}
CASES = (("glyphs", "small"), ("fashion", "resnet8"), ("letters", "small"), ("fashion", "small"), ("glyphs", "resnet8"), ("letters", "resnet8"))
WAYS = ("fixed", "auto")
FIXED = 1.5
"""Length of the recovery in cycles that `init` wrote before `auto`."""
COUNTS = {"train": 6000, "val": 1000, "test": 4000}
"""Images of a set that is not drawn for this purpose."""


class Outcome(Record):
    """What became of one way.

    Attributes:
        cycle: Epochs of the learning-rate cycle.
        epoch: When the network was pruned.
        epochs: Epochs after the cut.
        cost: Dense epochs that the way to the network costs, by multiply-accumulates.
        drop: Of test top-1 from the dense network, with the lower and the upper end of its interval.
        max_drop: Gate that `init` wrote: the upper end must be no higher.
        ended: Why a recovery of a length of its own ended.
    """

    data: str
    network: str
    seed: int
    way: str
    cycle: int
    epoch: float
    epochs: int
    cost: float
    dense: float
    test: float
    drop: tuple[float, float, float]
    max_drop: float
    ended: str


def draw(data: str, folder: Path, root: Path) -> None:
    """Write a set as train/, val/ and test/ with a folder per class."""
    if data == "letters":
        draw_letters(folder)
        return
    train, val, test = COUNTS.values()
    loaded = load_glyphs(train=train, validation=val, test=test) if data == "glyphs" else fashion.load(str(root), train + val, test)
    parts = [part for part, count in COUNTS.items() for _ in range(count)]
    for number, (image, label, part) in enumerate(zip(loaded.images[:, 0].numpy(), loaded.labels.tolist(), parts, strict=True)):
        place = folder / part / f"{label:02d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:05d}.png")


def run(data: str, network: str, seed: int, way: str, folder: Path, images: Path) -> Outcome:
    """Train one way and judge it; what ways share stands in the store."""
    torch.set_num_threads(1)
    if not folder.exists():
        scaffold(Ask(place=folder, data=images, model=NETWORKS[network]))
    os.chdir(folder)
    same = SameMacs(seed, folder / "my-recipe.yaml", Store(folder.parent / "store"))
    bench = same.bench
    gates, training = load_profile(str(folder / "my-device.yaml")).gates, bench.recipe.training
    dense, (step, _) = bench.segment(bench.total), same.trigger(bench.recipe.prune.criterion)
    widths, _ = same.widths()
    common: dict[str, Any] = {"dataset": bench.dataset, "training": training, "finetune": None}
    cut = bench.cut(bench.segment(step), widths, bench.recipe.prune.criterion)
    length: dict[str, Any] = {"length": RecoverConfig(epochs=ceil(FIXED * training.epochs))}
    if way == "auto":
        length = {"length": bench.recipe.prune.recover, "goal": Goal(max_drop=gates.max_drop, min_metric=gates.min_metric), "dense": dense}
    found = bench.store.run(recover, pruned=cut, **common, distill=None, teacher=None, **length)
    before, after = (judged(load_network(one), bench.dataset) for one in (dense, found))
    drop = CLASSIFICATION.interval(before, after)
    epochs = found.recovery.epochs if found.recovery else ceil(FIXED * training.epochs)
    assert gates.max_drop is not None
    return Outcome(
        data=data,
        network=network,
        seed=seed,
        way=way,
        cycle=training.epochs,
        epoch=bench.epoch(step),
        epochs=epochs,
        cost=bench.epoch(step) + cost_of(cut, cut.image_shape) * epochs,
        dense=CLASSIFICATION.reduce(before),
        test=CLASSIFICATION.reduce(after),
        drop=(drop.found, drop.low, drop.high),
        max_drop=gates.max_drop,
        ended=found.recovery.ended if found.recovery else "",
    )


@torch.no_grad()
def judged(network: nn.Module, dataset: Dataset) -> Statistics:
    """Return what every test image says of a network."""
    images, targets = load_split(dataset, "test")
    with evaluating(network):
        return join(
            [CLASSIFICATION.per_sample(to_arrays(outputs_of(network, images[i : i + 64])), targets[i : i + 64].numpy()) for i in range(0, len(images), 64)]
        )


def main() -> None:
    """Write sets and recipes, run what is missing until the time is over, summarise."""
    parser = argparse.ArgumentParser(description="How long to recover")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=None, help="begin nothing new after so many minutes")
    parser.add_argument("--folder", type=Path, default=None, help="keep images, recipes and store here; a temporary folder otherwise")
    parser.add_argument("--fashion", type=Path, default=fashion.DEBIAN)
    options = parser.parse_args()
    began, root = time.monotonic(), (options.folder or Path(tempfile.mkdtemp(prefix="recovery-"))).resolve()
    outcomes = [Outcome.model_validate(row) for row in json.loads(FILE.read_text())["outcomes"]] if FILE.exists() else []
    for seed in range(options.seeds):
        for data, network in CASES:
            if data == "fashion" and not options.fashion.exists():
                print(f"fashion is left out: {options.fashion} is not there", flush=True)
                continue
            images, folder = root / data, root / f"{data}-{network}"
            if not images.exists():
                draw(data, images, options.fashion)
            for way in WAYS:
                if any((o.data, o.network, o.seed, o.way) == (data, network, seed, way) for o in outcomes):
                    continue
                if options.minutes is not None and time.monotonic() - began > 60 * options.minutes:
                    return
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:  # each folder has a module `my_model`
                    outcomes.append(apart.submit(run, data, network, seed, way, folder, images).result())
                print(outcomes[-1], flush=True)
                save(outcomes)
    save(outcomes)


def save(outcomes: Sequence[Outcome]) -> None:
    """Write the outcomes with a summary in front: by set, network and way, means over the seeds."""
    summary = {}
    for key in dict.fromkeys((o.data, o.network, o.way) for o in outcomes):
        found = [o for o in outcomes if (o.data, o.network, o.way) == key]
        summary[", ".join(key)] = {
            "seeds": len(found),
            "dense": mean_interval([100 * o.dense for o in found]),
            "top1": mean_interval([100 * o.test for o in found]),
            "largest_drop": [100 * o.drop[2] for o in found],
            "gate": 100 * found[0].max_drop,
            "met": sum(o.drop[2] <= o.max_drop for o in found),
            "cycle": found[0].cycle,
            "epochs": [o.epochs for o in found],
            "cost": [round(o.cost, 2) for o in found],
            "ended": [o.ended for o in found],
        }
    FILE.write_text(json.dumps({"summary": summary, **host_facts(), "outcomes": [o.model_dump(mode="json") for o in outcomes]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
