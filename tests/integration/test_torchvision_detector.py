"""torchvision's SSDLite, trained on drawn shapes with its own loss, pruned, and deployed with boxes decoded outside of the engine."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.verification import verify_package

pytestmark = pytest.mark.slow  # latency is measured

EXAMPLE = Path(__file__).parents[2] / "examples" / "torchvision"
SIZE = 64
TIMING = TimingConfig.model_validate({"runs": 200, "block": 25, "warmup_runs": 20, "warmup_seconds": 0.0, "fitting": 6, "tries": 1, "verdict": {"most": 6}})
PRUNE = {"epi.every": 0.08, "epi.window": 1, "epi.monotone": 1, "rounds": 2, "margin": 0.1, "tolerance": 0.2}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    return __import__("prune_ssdlite")


def test_a_detector_is_pruned_with_its_own_loss_and_its_boxes_are_decoded_outside(example: Any, tmp_path: Path) -> None:
    settings = {"store": tmp_path / "store", "timing": TIMING}
    package, losses = example.run(
        latency=0.7, steps=40, batch=8, images=32, size=SIZE, pruning={**settings, "prune": PRUNE}, deploying={**settings, "max_drop": 1}
    )
    assert package.gates[0].verdict == "met", package.gates[0]
    assert all(np.mean(each[-5:]) < 0.8 * np.mean(each[:5]) for each in losses)
    assert package.rows[2].parameters < 0.9 * package.rows[0].parameters
    assert abs(package.rows[1].score - package.rows[2].score) < 0.02
    model = onnx.load(package.folder / "model.onnx")
    assert [output.name for output in model.graph.output] == ["bbox_regression", "cls_logits"]
    assert "NonMaxSuppression" not in {node.op_type for node in model.graph.node}
    assert "gives the golden outputs of 3 images" in verify_package(package.folder)[-1]


def test_what_cuts_the_raw_heads_cuts_the_detector(example: Any) -> None:
    detector = example.make_detector()
    network = example.RawHeads(detector)
    assert {id(each) for each in network.parameters()} == {id(each) for each in detector.parameters()}
    images, targets = example.draw(2, SIZE, seed=0)
    found = network.eval()(images)
    anchors = example.anchors_of(detector, SIZE)
    assert found["bbox_regression"].shape == (2, len(anchors), 4)
    assert example.loss_of(detector, anchors, found, targets).item() > 0
    assert detector.training


def test_the_score_of_perfect_detections_is_one(example: Any) -> None:
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]]), "labels": torch.tensor([1, 2])}
    perfect = {**target, "scores": torch.tensor([0.9, 0.8])}
    assert example.f1_of(perfect, target) == 1
    assert example.f1_of({**perfect, "labels": torch.tensor([2, 2])}, target) == 0.5
    assert example.f1_of({**perfect, "scores": torch.tensor([0.9, 0.1])}, target) == pytest.approx(2 / 3)
    twice = {name: torch.cat([each, each]) for name, each in perfect.items()}
    assert example.f1_of(twice, target) == pytest.approx(4 / 6)
    assert example.f1_of({name: each[:0] for name, each in perfect.items()}, target) == 0
