"""torchvision's SSDLite, pruned in a loop of one's own. The engine returns what the head returns; boxes are decoded outside of the graph.

    pip install "bonsai-compress[train]"
    python prune_ssdlite.py --latency 0.5

It trains on drawn discs and squares, so that it runs without data. Put a loader of your own in the place of `draw`.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import bonsai  # first: beside a CPU build of torch it helps torchvision to load
import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

# isort: split
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

KINDS = ("background", "disc", "square")
CONFIDENT, OVERLAP = 0.4, 0.5
"""Scores above the first are detections. A detection is right where it overlaps an object of its kind by the second."""
Targets = list[dict[str, torch.Tensor]]


class RawHeads(nn.Module):
    """Backbone, extra layers and head of a detector, which keeps them: whatever cuts this network cuts the detector.

    Args:
        detector: Its transform, its anchors and its decoding stay outside.
    """

    def __init__(self, detector: SSD) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (n, 3, height, width) to ``bbox_regression`` (n, anchors, 4) and ``cls_logits`` (n, anchors, classes)."""
        found: dict[str, torch.Tensor] = self.head(list(self.backbone(images).values()))
        return found


def make_detector() -> SSD:
    """Return an untrained SSDLite for the drawn kinds."""
    norm = partial(nn.BatchNorm2d, eps=0.001)  # torchvision's momentum, 0.03, is meant for hundreds of thousands of steps
    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(KINDS), norm_layer=norm)


@torch.no_grad()
def anchors_of(detector: SSD, size: int) -> torch.Tensor:
    """Return the detector's default boxes, (anchors, 4) corners in pixels, for images of one size."""
    images = torch.zeros(1, 3, size, size)
    features = list(copy.deepcopy(detector.backbone).eval()(images).values())
    (anchors,) = detector.anchor_generator(ImageList(images, [(size, size)]), features)
    return anchors


def loss_of(detector: SSD, anchors: torch.Tensor, outputs: dict[str, torch.Tensor], targets: Targets) -> torch.Tensor:
    """Return torchvision's own loss of what the head returned."""
    matched = [detector.proposal_matcher(box_iou(target["boxes"], anchors)) for target in targets]
    losses = detector.compute_loss(targets, outputs, [anchors] * len(targets), matched)
    return torch.stack(list(losses.values())).sum()


def train(
    network: nn.Module, optimizer: Optimizer, loss: Callable[[Any, Targets], torch.Tensor], batches: Iterator[Any], pruner: bonsai.Pruner | None = None
) -> list[float]:
    """Train a network, and prune it meanwhile if there is a pruner; return the loss of every step."""
    network.train()
    seen = []
    for images, targets in batches:
        found = loss(network(images), targets)
        found.backward()
        if pruner is not None:
            pruner.observe()
        optimizer.step()
        optimizer.zero_grad()
        if pruner is not None:
            pruner.step()
        seen.append(found.item())
    return seen


def evaluator(detector: SSD, anchors: torch.Tensor, images: torch.Tensor, targets: Targets, size: int) -> Callable[[Any], np.ndarray]:
    """Return an `evaluate` for `bonsai.deploy`: torchvision decodes what the engine returned, and every image gets its F1."""

    def evaluate(run: Any) -> np.ndarray:
        outputs = {name: torch.from_numpy(value) for name, value in run(images.numpy()).items()}
        found = detector.postprocess_detections(outputs, [anchors] * len(images), [(size, size)] * len(images))
        return np.array([f1_of(detected, target) for detected, target in zip(found, targets, strict=True)])

    return evaluate


def f1_of(detected: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> float:
    """Return the F1 of the detections in one image, 0-1: the best scores choose their object first."""
    sure = detected["scores"] > CONFIDENT
    overlaps = box_iou(detected["boxes"][sure], target["boxes"]) * (detected["labels"][sure, None] == target["labels"])
    hits = 0
    for row in overlaps:  # sorted by score
        best = int(row.argmax())
        if row[best] >= OVERLAP:
            overlaps[:, best] = 0
            hits += 1
    return 2 * hits / (len(overlaps) + len(target["boxes"]))


def draw(count: int, size: int, seed: int) -> tuple[torch.Tensor, Targets]:
    """Return images (count, 3, size, size) from -1 to 1 of discs and squares on noise, with their boxes in pixels."""
    rng = np.random.default_rng(seed)
    images, targets = rng.uniform(-1, -0.6, (count, 3, size, size)).astype(np.float32), []
    rows, columns = np.mgrid[:size, :size] + 0.5
    for image in images:
        boxes, labels = [], []
        for quarter in rng.permutation(4)[: rng.integers(1, 4)]:  # one object in a quarter of the image, so that none hides another
            side = int(rng.integers(size // 4, size // 2))
            top, left = (int(rng.integers(0, size // 2 - side + 1)) + size // 2 * int(place) for place in divmod(quarter, 2))
            label = int(rng.integers(1, len(KINDS)))
            across, down = np.abs(columns - left - side / 2), np.abs(rows - top - side / 2)
            inside = (np.maximum(across, down) if KINDS[label] == "square" else np.hypot(across, down)) < side / 2
            image[:, inside] = rng.uniform(0, 1, (3, 1))
            boxes.append([left, top, left + side, top + side])
            labels.append(label)
        targets.append({"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)})
    return torch.from_numpy(images), targets


def batches_of(images: torch.Tensor, targets: Targets, batch: int, steps: int, seed: int) -> Iterator[tuple[torch.Tensor, Targets]]:
    """Yield random batches, one for each step."""
    random = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randperm(len(images), generator=random)[:batch]
        yield images[chosen], [targets[place] for place in chosen.tolist()]


def run(*, latency: float, steps: int, batch: int = 16, images: int = 512, size: int = 96, pruning: dict[str, Any], deploying: dict[str, Any]) -> Any:
    """Train a dense detector and a pruned one, and deploy the pruned one.

    Args:
        latency: Budget as a fraction of the dense engine's latency.
        steps: Optimizer steps of either training.
        batch: Images in a step.
        images: Images to train on; a quarter as many are kept for the verdict.
        size: Edge of an image in pixels.
        pruning: More settings of `bonsai.Pruner`.
        deploying: More settings of `bonsai.deploy`.

    Returns:
        The package, and the losses of both trainings.
    """
    drawn, example = draw(images, size, seed=0), torch.zeros(2, 3, size, size)
    networks, losses = [], []
    for pruned in (False, True):
        torch.manual_seed(0)
        detector = make_detector()
        network, anchors = RawHeads(detector), anchors_of(detector, size)
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
        asked = {"latency": latency, "outputs": ("bbox_regression", "cls_logits"), "precision": "fp32", "steps": steps, **pruning}
        pruner = bonsai.Pruner(network, optimizer, example, **asked) if pruned else None
        losses.append(train(network, optimizer, partial(loss_of, detector, anchors), batches_of(*drawn, batch, steps, seed=1), pruner))
        networks.append(network)
    evaluate = evaluator(detector, anchors, *draw(images // 4, size, seed=1), size)
    settings = {"latency": latency, "evaluate": evaluate, "samples": drawn[0], "score": "F1", "name": "ssdlite", **deploying}
    return bonsai.deploy(networks[1], example, reference=networks[0], **settings), losses


def main() -> None:
    """Train, prune and deploy."""
    parser = argparse.ArgumentParser(description="Prune torchvision's SSDLite while it trains")
    parser.add_argument("--latency", type=float, default=0.5, help="budget as a fraction of the dense engine's latency")
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps of either training")
    parser.add_argument("--max-drop", type=float, default=0.1, help="largest drop of F1")
    options = parser.parse_args()
    package, _ = run(latency=options.latency, steps=options.steps, pruning={}, deploying={"max_drop": options.max_drop})
    for row in package.rows:
        print(f"{row.what}: F1 {row.score:.3f}")


if __name__ == "__main__":
    main()
