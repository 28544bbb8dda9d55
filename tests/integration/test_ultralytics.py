"""Ultralytics' trainer prunes a YOLO network on drawn shapes; it is no dependency of Bonsai, so this runs where it is installed."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bonsai.stages.backends.timing_config import TimingConfig

pytestmark = [
    pytest.mark.slow,  # latency is measured
    pytest.mark.filterwarnings("ignore"),  # the library's
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "ultralytics"
FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
SIZE, BATCH, EPOCHS = 64, 16, 3
TIMING = TimingConfig.model_validate({"runs": 200, "block": 25, "warmup_runs": 20, "warmup_seconds": 0.0, "fitting": 6, "tries": 1, "verdict": {"most": 3}})
PRUNE = {"epi.every": 0.08, "epi.window": 1, "epi.monotone": 1, "rounds": 1, "margin": 0.05, "tolerance": 0.3}


@pytest.fixture
def yolo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in (("YOLO_OFFLINE", "1"), ("YOLO_AUTOINSTALL", "0"), ("YOLO_CONFIG_DIR", str(tmp_path / "config"))):
        monkeypatch.setenv(name, value)
    (tmp_path / "config" / "Ultralytics").mkdir(parents=True)
    if FONT.is_file():
        (tmp_path / "config" / "Ultralytics" / "Arial.ttf").write_bytes(FONT.read_bytes())  # else it is looked for on the network
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.chdir(tmp_path)
    return pytest.importorskip("ultralytics").YOLO


def test_the_trainer_of_others_trains_validates_and_saves_the_pruned_network(yolo: Any, tmp_path: Path) -> None:
    pruning, drawing = __import__("pruning"), __import__("draw_shapes")
    data = drawing.draw_shapes(str(tmp_path / "shapes"), size=SIZE)
    model, seen = yolo("yolov8n.yaml"), []
    settings = {"latency": 0.6, "precision": "fp32", "timing": TIMING, "prune": PRUNE, "store": tmp_path / "store"}
    model.add_callback("on_train_start", pruning.prune_to(SIZE, **settings))
    model.add_callback("on_fit_epoch_end", pruning.require_carried)
    model.add_callback("on_train_end", lambda trainer: seen.append(trainer))
    options = {"imgsz": SIZE, "batch": BATCH, "nbs": BATCH, "device": "cpu", "workers": 0, "amp": False, "pretrained": False, "plots": False, "verbose": False}
    model.train(data=data, epochs=EPOCHS, optimizer="AdamW", project=str(tmp_path / "runs"), **options)
    (trainer,) = seen
    pruner = trainer.pruner
    assert pruner.finished
    widths = {name: len(channels) for name, channels in pruner.kept.items() if name in pruner.target.network.dense_widths}
    assert pruner.target.latency(widths) <= pruner.target.limit_ms
    assert sum(widths.values()) < 0.9 * sum(pruner.target.network.dense_widths.values())
    saved = yolo(str(trainer.last)).model
    assert {name: tensor.shape for name, tensor in saved.state_dict().items()} == {name: t.shape for name, t in trainer.ema.ema.state_dict().items()}
    assert saved.model[0].conv.out_channels == trainer.model.model[0].conv.out_channels == widths["model.0.conv"]
    assert all(torch.isfinite(tensor).all() for tensor in saved.state_dict().values())
    trained, average = (network.state_dict()["model.0.conv.weight"] for network in (trainer.model, trainer.ema.ema))
    assert (trained - average).norm() < 0.1 * trained.norm(), "the average has followed the cut network"
    pruning.require_carried(trainer)
    trainer.ema._pairs = ([average.clone()], [trained])
    with pytest.raises(RuntimeError, match="holds another network than the one that is trained"):
        pruning.require_carried(trainer)
    for name in ("pruning", "draw_shapes"):
        sys.modules.pop(name)
