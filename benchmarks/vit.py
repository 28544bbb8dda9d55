"""A trained vision transformer, pruned to half of its latency on this machine: heads, MLP widths and the embedding width.

    python benchmarks/vit.py --folder DIR       # results/vit.json; an hour on two cores, goes on where it was stopped

timm's ViT-Tiny for images of 32 pixels in patches of 4 (65 tokens, width 192, 3 heads) is trained on the 1,797 handwritten `digits` by a plain loop and
saved by `torch.save`: without pretraining, a transformer needs far more epochs for anything harder.
Then a recipe with `model.weights` prunes it where EPI fires, distils from the given network, and goes to the engine. The latencies are those of the two
FP32 engines, timed in turns; accuracies are of the same engines on the test images.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from arena import RESULTS, mean_interval, shown
from torch import nn

from bonsai.pipeline.recipes.recipe import Recipe, load_recipe
from bonsai.pipeline.run.flow import compress
from bonsai.profiles.located_yaml import Record
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.registry import source_digest
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.registry import build_network
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.manifest import host_facts, read_manifest
from bonsai.stages.store.store import Store, load_artifact
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.state import TrainState, reproducible

FILE = RESULTS / "vit.json"
BUDGET = 0.5
LR, RATE = 5e-4, 0.5
"""Highest learning rate of AdamW for the given network, and for what goes on from it as a fraction of that."""
RECIPE = """\
name: vit-{seed}
description: ViT-Tiny on digits, {what}
model: {{name: timm/vit_tiny_patch16_224, options: {{img_size: 32, patch_size: 4, depth: {depth}}}, seed: {seed}{weights}}}
data: {{name: digits, options: {{size: 32}}, validation: 0.15, test: 0.25}}
training: {{epochs: {epochs}, batch_size: 64, optimizer: adamw, lr: {lr}, warmup_epochs: 2, weight_decay: 0.05, seed: {seed}, threads: {threads}{reference}}}
prune: {{epi: {{every: 0.02}}, criterion: bn_gradient, distill: {{teacher: trained}}}}
"""
CHANGES = {"profile.target.precision": "fp32", "profile.budget.latency": BUDGET, "profile.gates.max_drop": 1}


class Options(NamedTuple):
    """The command line."""

    folder: Path
    seeds: int
    depth: int
    epochs: int
    finetune: int
    threads: int


class Row(Record):
    """One network.

    Attributes:
        dense: Top-1 of the given network's engine on the test images, 0-1.
        top1: The same of the pruned network's.
        drop: Difference of the two, and the upper end of its 95 % interval.
        dense_ms: Median latency of the given network's engine for one image.
        latency: Latency of the pruned network's engine over that, measured in new processes.
        heads: Heads that are left, by layer.
        mlp: Width of the MLP, by layer.
        embedding: Embedding width.
        parameters: Of the dense and of the pruned network.
        macs: The same.
        seconds: Wall time of the given network's training, and of the run.
    """

    seed: int
    dense: float
    top1: float
    drop: tuple[float, float]
    dense_ms: float
    latency: float
    heads: tuple[int, ...]
    mlp: tuple[int, ...]
    embedding: int
    parameters: tuple[int, int]
    macs: tuple[int, int]
    seconds: tuple[float, float]


def write_recipe(options: Options, seed: int, *, weights: str = "") -> Path:
    """Write the recipe that trains the given network, or the one that goes on from weights."""
    facts = options._asdict() | {"seed": seed, "what": "trained elsewhere" if weights else "trained", "lr": LR * (RATE if weights else 1)}
    facts |= {"weights": f", weights: {weights}" if weights else "", "epochs": options.finetune if weights else options.epochs}
    file = options.folder / f"{'finetune' if weights else 'given'}-{seed}.yaml"
    file.write_text(RECIPE.format(**facts, reference=", reference: given" if weights else ""))
    return file


def given(options: Options, seed: int, store: Store) -> tuple[str, float]:
    """Return the file of the given network, trained unless it is there, and the seconds that the training took."""
    file, facts = options.folder / f"given-{seed}.pth", options.folder / f"given-{seed}.json"
    if not file.exists():
        recipe, started = load_recipe(str(write_recipe(options, seed))), time.perf_counter()
        network = train(recipe, store, options.folder / f"given-{seed}")
        facts.write_text(json.dumps(time.perf_counter() - started))
        torch.save({"state_dict": network.state_dict()}, file)
    return file.name, json.loads(facts.read_text())


def train(recipe: Recipe, store: Store, resume: Path) -> nn.Module:
    """Train a network by its recipe alone; a training that was stopped goes on from its last epoch."""
    dataset: Dataset = store.run(prepare, data=recipe.data, content=source_digest(recipe.data))
    network = build_network(recipe.model, dataset.image_shape, len(dataset.classes))
    resume.mkdir(exist_ok=True)
    with reproducible(recipe.training):
        phase = Phase("trunk", dataset, recipe.training, resume)
        phase.train(TrainState(network, recipe.training), (), start=0, stop=recipe.training.epochs * phase.batches.per_epoch)
    return network


def run(options: Options, seed: int) -> Row:
    """Prune one given network."""
    store = Store(options.folder / "store")
    weights, trained = given(options, seed, store)
    started = time.perf_counter()
    (package,) = compress(str(write_recipe(options, seed, weights=weights)), "local-cpu", CHANGES, store=store.root)
    seconds = time.perf_counter() - started
    final = load_artifact(Checkpoint, store.root / read_manifest(package.folder).inputs["final"]["artifact"])
    dense, shipped = (next(row for row in package.rows if row.network == network) for network in ("dense", "pruned"))
    gates = {gate.name: gate for gate in package.gates}
    assert dense.latency is not None
    widths = {name: len(channels) for name, channels in final.kept.items()}
    return Row(
        seed=seed,
        dense=dense.judged.value,
        top1=shipped.judged.value,
        drop=(dense.judged.value - shipped.judged.value, gates["accuracy drop"].found),
        dense_ms=dense.latency.p50,
        latency=gates["latency"].found,
        heads=tuple(width for name, width in widths.items() if name.endswith("attn.qkv")),
        mlp=tuple(width for name, width in widths.items() if name.endswith("mlp.fc1")),
        embedding=widths["patch_embed.proj"],
        parameters=(dense.parameters, shipped.parameters),
        macs=(dense.macs, shipped.macs),
        seconds=(trained, seconds),
    )


def save(rows: list[Row], options: Options) -> None:
    """Write the rows with their means and 95 % intervals over the seeds in front."""
    columns = {name: [getattr(row, name) for row in rows] for name in ("dense", "top1", "latency")}
    summary = {name: mean_interval(values) for name, values in columns.items()} | {"drop": mean_interval([row.drop[0] for row in rows])}
    for name, found in summary.items():
        print(f"{name:8} {shown(found)}", flush=True)
    settings = {name: value for name, value in options._asdict().items() if name not in ("folder", "seeds")}
    text = json.dumps({"budget": BUDGET, "summary": summary, **settings, **host_facts(), "rows": [row.model_dump(mode="json") for row in rows]}, indent=1)
    part = FILE.with_suffix(".part")
    part.write_text(text + "\n")
    part.replace(FILE)


def main() -> None:
    """Run the seeds that are missing."""
    parser = argparse.ArgumentParser(description="A vision transformer at half of its latency")
    parser.add_argument("--folder", type=Path, default=None, help="keep networks, recipes and the store here; a temporary folder otherwise")
    for name, default, what in (
        ("seeds", 1, "networks"),
        ("depth", 6, "blocks of the network"),
        ("epochs", 40, "training of the given network"),
        ("finetune", 12, "epochs of the recipe that prunes"),
        ("threads", 1, "CPU threads of the training"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=what)
    found = parser.parse_args()
    folder = (found.folder or Path(tempfile.mkdtemp(prefix="vit-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(folder, found.seeds, found.depth, found.epochs, found.finetune, found.threads)
    os.chdir(folder)  # from which the recipe names its weights
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    same = all(known.get(name) == getattr(options, name) for name in ("depth", "epochs", "finetune"))
    rows = [Row.model_validate(row) for row in known["rows"]] if known and same else []
    for seed in range(options.seeds):
        if seed not in {row.seed for row in rows}:
            rows.append(run(options, seed))
            print(rows[-1].model_dump_json(), flush=True)
            save(rows, options)


if __name__ == "__main__":
    main()
