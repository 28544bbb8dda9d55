"""Ultralytics' trainer on drawn shapes. It is licensed under AGPL-3.0 (or sold with another licence); nothing of it is in Bonsai."""

import argparse

import bonsai
from draw_shapes import draw_shapes
from pruning import exportable, judged_on, prune_to, require_carried
from ultralytics import YOLO

SIZE, BATCH = 64, 16


def main() -> None:
    """Build YOLOv8n from its description, train and save it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--latency-ms", type=float, required=True, help="budget for one inference")
    args = parser.parse_args()
    data = draw_shapes("shapes", size=SIZE)
    model = YOLO("yolov8n.yaml")
    model.add_callback("on_train_start", prune_to(SIZE, latency_ms=args.latency_ms, precision="fp32", prune={"margin": 0.1}))
    model.add_callback("on_fit_epoch_end", require_carried)
    settings = {"imgsz": SIZE, "batch": BATCH, "nbs": BATCH, "device": "cpu", "workers": 0, "amp": False, "pretrained": False, "plots": False}
    model.train(data=data, epochs=args.epochs, optimizer="AdamW", **settings)
    package = bonsai.deploy(exportable(model.trainer.ema.ema), latency_ms=args.latency_ms, **judged_on(data, SIZE, dense="dense.pt"))
    print("\n".join(gate.sentence for gate in package.gates))


if __name__ == "__main__":
    main()
