import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bonsai.stages.networks.suppression import nms


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes, written out."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


def slow_nms(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    kept: list[int] = []
    for one in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[one], boxes[other]) <= threshold for other in kept):
            kept.append(one)
    return kept


def box_of(sides: tuple[int, int, int, int]) -> list[float]:
    (left, right), (top, bottom) = sorted(sides[:2]), sorted(sides[2:])
    return [float(left), float(top), float(right), float(bottom)]


CORNERS = st.tuples(*[st.integers(0, 8)] * 4).map(box_of)
BOXES = st.lists(st.tuples(CORNERS, st.integers(0, 3)), max_size=30)


@given(BOXES, st.sampled_from([0.0, 0.24, 0.51, 0.77, 1.0]))
@settings(max_examples=60, deadline=None)
def test_nms_keeps_what_a_slow_reference_keeps_with_equal_scores_and_empty_boxes(found: list[tuple[list[float], int]], threshold: float) -> None:
    boxes, scores = [box for box, _ in found], [float(score) for _, score in found]
    kept = nms(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), threshold)
    assert kept.dtype == torch.int64
    assert kept.tolist() == slow_nms(boxes, scores, threshold)


def test_nms_of_no_boxes_keeps_none() -> None:
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_nms_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"boxes \(n, 4\) and scores \(n,\), not \(2, 4\) and \(3,\)"):
        nms(torch.zeros(2, 4), torch.zeros(3), 0.5)
