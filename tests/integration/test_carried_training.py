"""Everything that training can carry, in one run: averages, a lower precision, a regulariser, soft schedules, distillation, limits of single layers."""

import json
from pathlib import Path

import numpy as np
import pytest
from lineages import ancestor, folder_of
from safetensors.numpy import load_file

from bonsai import compress, load
from bonsai.stages.store.manifest import MANIFEST

CONFIGS = Path(__file__).parent / "configs"
TINY, CPU = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-cpu"))

pytestmark = pytest.mark.slow


def test_everything_that_training_can_carry_goes_through_the_path(tmp_path: Path) -> None:
    overrides = {
        "training": {"epochs": 4, "batch_size": 64, "lr": 0.003, "optimizer": "adamw", "ema": 0.8, "precision": "bf16"},
        "prune.regulariser": {"name": "growing", "strength": 1e-4, "growth": 1e-4, "every": 5},
        "prune.schedule": {"name": "geometric", "steps": 3, "iterations": 6, "soft": True},
        "prune.criterion": "bn_gradient",
        "prune.distill": {"weight": 0.3, "temperature": 2.0},
        "prune.keep": ["layer1.0.conv1"],
        "prune.floors": {"layer3.*": 0.3},
        "quantize.distill": {"weight": 0.3, "temperature": 2.0},
        "quantize.keep_float": ["conv1"],
    }
    (package,) = compress(TINY, CPU, overrides, store=tmp_path)
    assert {gate.name: gate.passed for gate in package.gates} == {"latency": True, "accuracy drop": True, "float convolutions": True}
    kept = package.decisions.kept_widths
    assert "layer1.0.conv1" not in kept
    assert kept["layer3.0.conv1"] >= 48
    manifests = {stage: ancestor(tmp_path, stage) for stage in ("train_dense", "prune", "recover")}
    assert {name: len(channels) for name, channels in manifests["prune"]["record"]["kept"].items()} == kept
    assert manifests["prune"]["record"]["metrics"]["cut_difference"] <= 1e-4
    assert set(manifests["train_dense"]["files"]) == {"average.safetensors", "scores.safetensors", "weights.safetensors"}
    beside = json.loads((tmp_path / "moments" / str(manifests["train_dense"]["key"]) / MANIFEST).read_text())
    assert set(beside["files"]) == {"penalty.safetensors", "statistics.safetensors", "training.safetensors"}
    assert manifests["recover"]["inputs"]["teacher"]["artifact"].startswith("train_dense/")
    card = (tmp_path / "packages" / "tiny--tiny-cpu" / "MODEL_CARD.md").read_text()
    assert "with the regulariser growing" in card
    assert "In float by the recipe: conv1." in card
    assert next(gate.found for gate in package.gates if gate.name == "float convolutions") == 1
    averaged, raw = (load(tmp_path / folder_of(tmp_path, "prune")), load_file(tmp_path / folder_of(tmp_path, "prune") / "weights.safetensors"))
    assert not np.array_equal(averaged.conv1.weight.detach().numpy(), raw["conv1.weight"])
