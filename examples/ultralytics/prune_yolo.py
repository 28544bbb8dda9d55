"""A YOLO network, pruned while Ultralytics' own trainer trains it.

    pip install "bonsai-compress[train]" ultralytics
    python prune_yolo.py --data shapes.yaml --latency 0.5

Ultralytics is licensed under AGPL-3.0 (or sold with another licence); nothing of it is in Bonsai.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch

import bonsai


def prune_to(steps: int, size: int, **settings: Any) -> Callable[[Any], None]:
    """Return a callback for ``on_train_start``.

    Args:
        steps: Optimizer steps of the whole training.
        size: Edge of the images in pixels.
        settings: Those of `bonsai.Pruner`.
    """

    def on_train_start(trainer: Any) -> None:
        trainer.model.model[-1].dynamic = True  # anchors are made for each batch: a graph cannot keep those of one size
        example = torch.zeros(2, 3, size, size)
        trainer.pruner = bonsai.Pruner(trainer.model, trainer.optimizer, example, outputs=("0",), averages=[trainer.ema.ema], steps=steps, **settings)
        trainer.optimizer.register_step_pre_hook(lambda *_: trainer.pruner.observe())
        trainer.optimizer.register_step_post_hook(lambda *_: trainer.pruner.step())

    return on_train_start


def require_carried(trainer: Any) -> None:
    """Check at ``on_fit_epoch_end`` that optimizer and average follow the network: otherwise the uncut one would be trained, validated and saved.

    Raises:
        RuntimeError: They do not.
    """
    live = {id(parameter) for parameter in trainer.model.parameters()}
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    shapes = [{name: tensor.shape for name, tensor in network.state_dict().items()} for network in (trainer.model, trainer.ema.ema)]
    if held != live or shapes[0] != shapes[1]:
        raise RuntimeError("the optimizer or the average holds another network than the one that is trained")


def main() -> None:
    """Build YOLOv8n from its description, train and prune it."""
    from ultralytics import YOLO

    parser = argparse.ArgumentParser(description="Prune a YOLO network while it trains")
    parser.add_argument("--data", required=True, help="Ultralytics' description of a dataset")
    parser.add_argument("--latency", type=float, default=0.5, help="budget as a fraction of the dense engine's latency")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, required=True, help="number of training images")
    parser.add_argument("--size", type=int, default=64, help="edge of the images in pixels")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    model = YOLO("yolov8n.yaml")
    steps = options.epochs * -(-options.images // options.batch)
    model.add_callback("on_train_start", prune_to(steps, options.size, latency=options.latency, precision="fp32"))
    model.add_callback("on_fit_epoch_end", require_carried)
    settings = {"imgsz": options.size, "batch": options.batch, "nbs": options.batch, "device": "cpu", "workers": 0, "amp": False, "pretrained": False}
    model.train(data=options.data, epochs=options.epochs, optimizer="AdamW", plots=False, **settings)


if __name__ == "__main__":
    main()
