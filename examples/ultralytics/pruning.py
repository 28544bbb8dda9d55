"""What `after.py` needs beside Bonsai: callbacks for Ultralytics' trainer, and mAP50 by Ultralytics' validator."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bonsai
import numpy as np
import torch
from PIL import Image
from torch import nn
from ultralytics import YOLO
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.tasks import DetectionModel

SHAPE = (3, 64, 64)


def prune_to(size: int, **settings: Any) -> Callable[[Any], None]:
    """Return a callback for ``on_train_start``.

    Args:
        size: Edge of the images in pixels.
        settings: Those of `bonsai.Pruner`; `steps` are the trainer's, one for each batch.
    """

    def on_train_start(trainer: Any) -> None:
        trainer.model.model[-1].dynamic = True  # anchors are made for each batch: a graph cannot keep those of one size
        made = {"outputs": ("0",), "averages": [trainer.ema.ema], "steps": trainer.epochs * len(trainer.train_loader)}
        trainer.pruner = bonsai.Pruner(trainer.model, trainer.optimizer, torch.zeros(2, 3, size, size), **made, **settings)
        trainer.optimizer.register_step_pre_hook(lambda *_: trainer.pruner.observe())
        trainer.optimizer.register_step_post_hook(lambda *_: trainer.pruner.step() and anew(trainer.ema))

    return on_train_start


def anew(average: Any) -> None:
    """Let Ultralytics' average look for its tensors again: it keeps lists of them, and goes on with those that were there before the cut."""
    average._pairs = None


def require_carried(trainer: Any) -> None:
    """Check at ``on_fit_epoch_end`` that optimizer and average follow the network: otherwise another one would be trained, validated and saved.

    Raises:
        RuntimeError: They do not.
    """
    live = {id(parameter) for parameter in trainer.model.parameters()}
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    average, network = trainer.ema.ema.state_dict(), trainer.model.state_dict()
    shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (average, network)]
    places = {tensor.data_ptr() for tensor in (*average.values(), *network.values())}
    averaged = {tensor.data_ptr() for tensors in getattr(trainer.ema, "_pairs", None) or () for tensor in tensors}
    if held != live or shapes[0] != shapes[1] or not averaged <= places:
        raise RuntimeError("the optimizer or the average holds another network than the one that is trained")


def exportable(network: nn.Module) -> nn.Module:
    """Return a copy that returns boxes and scores alone, (n, 4 + classes, places), as Ultralytics' own exporter makes it."""
    copied = copy.deepcopy(network).float().eval()
    copied.model[-1].export = copied.model[-1].dynamic = True
    return copied


def network() -> nn.Module:
    """Return the untrained network, for `dense_latency.py`."""
    return exportable(DetectionModel("yolov8n.yaml", nc=2, verbose=False))


class EngineForValidator(nn.Module):
    """An engine that Ultralytics' validator takes for a network.

    Args:
        run: Maps images (n, 3, height, width) to boxes and scores (n, 4 + classes, places).
        names: Of the classes.
    """

    def __init__(self, run: Callable[[np.ndarray], np.ndarray], names: dict[int, str]) -> None:
        super().__init__()
        self.run, self.names, self.stride = run, names, torch.tensor([32])

    def forward(self, images: torch.Tensor, **_: Any) -> torch.Tensor:
        """Run the engine."""
        return torch.from_numpy(self.run(images.numpy()))


def judged_on(data: str, size: int, *, dense: str) -> dict[str, Any]:
    """Return the arguments of `bonsai.deploy` that say by what a detector is judged.

    Args:
        data: Ultralytics' description of a set, whose part `val` is used.
        size: Edge of the images in pixels.
        dense: Checkpoint of the network that was trained without pruning.
    """
    found = check_det_dataset(data)
    files = sorted(Path(found["val"]).glob("*.png"))
    images = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255 for file in files])

    def map50(run: Callable[[np.ndarray], np.ndarray]) -> float:
        settings = {"data": data, "imgsz": size, "device": "cpu", "workers": 0, "plots": False, "verbose": False}
        return DetectionValidator(args=settings)(model=EngineForValidator(run, found["names"]))["metrics/mAP50(B)"]

    given = {"example_input": images, "samples": images, "reference": exportable(YOLO(dense).model)}
    return {**given, "evaluate": map50, "score": "mAP50", "max_drop": 0.1}
