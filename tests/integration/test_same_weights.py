"""The recipe `resnet-edge`, made small, trains the weights that it trained before, to the bit.

Arithmetic of floats differs between processors and versions of libraries. So digests of the weights are committed with the environment that they were
computed in. Anywhere else, two trainings in processes of their own are compared with each other.
"""

import json
import subprocess
import sys
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import pytest
import torch

from bonsai.pipeline.recipes.recipe import load_recipe
from bonsai.pipeline.run.inspecting import inspect_network
from bonsai.pipeline.run.trunk import trunk_inputs
from bonsai.stages.data.registry import source_digest
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, load_tensors
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.steps.prune import prune
from bonsai.stages.steps.quantize import quantize
from bonsai.stages.steps.recover import recover
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.store import Store

KNOWN = Path(__file__).parent / "resnet-edge-weights.json"
TOOLS = ("torch", "torchvision", "torch-pruning", "numpy", "scikit-learn", "pillow")
SMALL = {"model.options": "{width: 8}", "data.options": "{size: 16}", "training.epochs": 1, "training.threads": 1, "quantize.epochs": 2}
CHECKS = (5, 10)
"""Optimizer steps at which a segment of the trunk ends; half of each group is pruned at the last."""


def train(store: Store) -> dict[str, Checkpoint]:
    """Run the recipe's stages without a device: its widths are fixed, as a measured latency is never the same."""
    recipe = load_recipe("resnet-edge", SMALL)
    dataset = store.run(prepare, data=recipe.data, content=source_digest(recipe.data))
    groups = inspect_network(recipe, dataset.image_shape, len(dataset.classes)).groups
    dense = store.run(initialise, dataset=dataset, model=recipe.model, weights=None)
    found = {"initial": dense}
    for stop in CHECKS:
        dense = store.run(train_dense, **trunk_inputs(recipe, dataset, groups), previous=dense, stop=stop)
    plan, branch = WidthPlan(widths={group.name: group.width // 2 for group in groups}), {"dataset": dataset, "training": recipe.training, "finetune": None}
    how = {"criterion": recipe.prune.criterion, "schedule": recipe.prune.schedule, "batchnorm_batches": recipe.prune.batchnorm_batches}
    cut = store.run(prune, dense=dense, plan=plan, reselection=None, **branch, **how)
    whole = store.run(recover, pruned=cut, length=recipe.prune.recover, distill=None, teacher=None, **branch)
    quantised = store.run(quantize, pruned=whole, dataset=dataset, training=recipe.training, config=recipe.quantize, dialect="ort", weight_bits=8)
    return found | {"dense": dense, "cut": cut, "pruned": whole, "quantised": quantised}


def digests(store: Store) -> dict[str, str]:
    """Return the sha256 of the weights after each part of the way."""
    found = {}
    for name, checkpoint in train(store).items():
        digest = sha256()
        for tensor, values in sorted(load_tensors(checkpoint, WEIGHTS).items()):
            digest.update(tensor.encode() + values.contiguous().numpy().tobytes())
        found[name] = digest.hexdigest()
    return found


def environment() -> str:
    """Return what the last bits depend on: libraries, the instruction set, and the processor, by whose caches kernels choose their blocks."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = [line.partition(":")[2].strip() for key in ("model name", "cpu family", "model", "cache size") for line in lines if line.split("\t")[0] == key]
    processor = " / ".join(dict.fromkeys(facts)) or "unknown processor"
    return ", ".join([*(f"{tool} {metadata.version(tool)}" for tool in TOOLS), torch.backends.cpu.get_cpu_capability(), processor])


def in_a_process(store: Path) -> dict[str, str]:
    done = subprocess.run([sys.executable, "-P", __file__, str(store)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow  # two trainings
def test_the_weights_are_what_they_were(tmp_path: Path) -> None:
    known, found = json.loads(KNOWN.read_text(encoding="utf-8")), in_a_process(tmp_path / "a")
    assert len(set(found.values())) == 5
    expected = known[environment()] if environment() in known else in_a_process(tmp_path / "b")
    assert found == expected, f"{environment()}: if the weights are meant to change, raise the stage's version and write this into {KNOWN.name}"


if __name__ == "__main__":
    print(json.dumps(digests(Store(Path(sys.argv[1])))))
