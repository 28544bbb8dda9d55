"""Ultralytics' trainer on drawn shapes. It is licensed under AGPL-3.0 (or sold with another licence); nothing of it is in Bonsai."""

import argparse

from draw_shapes import draw_shapes
from ultralytics import YOLO

SIZE, BATCH = 64, 16


def main() -> None:
    """Build YOLOv8n from its description, train and save it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args()
    data = draw_shapes("shapes", size=SIZE)
    model = YOLO("yolov8n.yaml")
    settings = {"imgsz": SIZE, "batch": BATCH, "nbs": BATCH, "device": "cpu", "workers": 0, "amp": False, "pretrained": False, "plots": False}
    model.train(data=data, epochs=args.epochs, optimizer="AdamW", **settings)
    model.save("dense.pt")


if __name__ == "__main__":
    main()
