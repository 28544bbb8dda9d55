"""`bonsai.deploy` judges an engine at every point of a profile."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import bonsai
from bonsai.pipeline.loop.deploy import Deployed
from bonsai.profiles.errors import ConfigError
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.contents import read_any_intact
from bonsai.stages.delivery.packaged_timing import time_package

pytestmark = pytest.mark.slow  # latency is measured

TIMING = TimingConfig.model_validate({"runs": 200, "block": 20, "warmup_runs": 20, "warmup_seconds": 0.0, "tries": 1, "verdict": {"most": 3}})
IMAGES = torch.rand(8, 1, 24, 24)
BOX = """extends: local-cpu
name: box
budget: {latency_ms: 1000}
target: {precision: fp32}
points:
  - {batch: 8, budget: {latency: 0.001}}
  - {threads: 2, budget: {latency_ms: 1000}}
"""


def network(channels: int) -> nn.Module:
    layers = [nn.Conv2d(1, channels, 3), nn.ReLU(), nn.Conv2d(channels, channels, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]
    return nn.Sequential(*layers)


def deploy(folder: Path, **given: Any) -> Deployed:
    (folder / "box.yaml").write_text(BOX)
    facts = {"evaluate": lambda _: 1.0, "samples": IMAGES, "timing": TIMING, "store": folder / "store", "name": "box", "target": str(folder / "box.yaml")}
    return bonsai.deploy(network(16), IMAGES[:2], **{**facts, **given})


def test_a_deployed_engine_is_judged_at_every_point(tmp_path: Path) -> None:
    package = deploy(tmp_path, reference=network(64), max_drop=1)
    verdicts = {gate.name: gate.verdict for gate in package.gates}
    assert verdicts == {"latency": "met", "accuracy drop": "met", "latency at batch 8": "missed", "latency at 2 threads": "met"}
    assert not package.passed
    manifest = read_any_intact(package.folder)
    assert manifest.compatibility.batch == (1, 8)
    assert sum(ancestor.artifact.startswith("time_engine/") for ancestor in manifest.lineage) == 3
    card = (package.folder / "MODEL_CARD.md").read_text()
    assert "**latency at batch 8 MISSED.**" in card
    assert "at 2 threads p50 <= 1000 ms" in card
    lines, gates = time_package(package.folder, tmp_path / "store")
    assert {gate.name: gate.verdict for gate in gates} == {name: verdict for name, verdict in verdicts.items() if name != "accuracy drop"}
    assert any(line.startswith("at batch 8: latency: ") and "times what the package says" not in line for line in lines), "its package has no figure for points"


def test_a_fraction_at_a_point_needs_the_reference(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)a budget that is a fraction needs the dense network.*given: +latency=0\.001 and no reference"):
        deploy(tmp_path)


def test_a_file_of_a_fixed_batch_has_no_points_at_another_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)a file of a fixed batch has no other points.*given: +dynamic_batch false, and points at batch 8"):
        deploy(tmp_path, reference=network(64), dynamic_batch=False)
