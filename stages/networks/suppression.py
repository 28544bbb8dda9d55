"""Non-maximum suppression on the CPU, for torchvision where its compiled operators do not load."""

import torch


def nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Return the indices of the boxes to keep, the highest score first: greedily, as torchvision's own operator does.

    A box is dropped where it overlaps one of a higher score by more than `iou_threshold`; of equal scores the first box comes first.

    Args:
        dets: (n, 4) corners x1, y1, x2, y2.
        scores: (n,).
        iou_threshold: Intersection over union, 0-1.

    Raises:
        ValueError: The shapes do not fit.
    """
    if dets.ndim != 2 or dets.shape[1] != 4 or scores.shape != dets.shape[:1]:
        raise ValueError(f"nms takes boxes (n, 4) and scores (n,), not {tuple(dets.shape)} and {tuple(scores.shape)}")
    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive, kept = torch.ones(len(boxes), dtype=torch.bool), []
    for place in range(len(boxes)):
        if not alive[place]:
            continue
        kept.append(place)
        rest = boxes[place + 1 :]
        sides = (torch.minimum(boxes[place, 2:], rest[:, 2:]) - torch.maximum(boxes[place, :2], rest[:, :2])).clamp_min(0)
        shared = sides[:, 0] * sides[:, 1]
        alive[place + 1 :] &= ~(shared / (areas[place] + areas[place + 1 :] - shared) > iou_threshold)  # boxes without an area give NaN, and stay
    return order[torch.tensor(kept, dtype=torch.long)]
