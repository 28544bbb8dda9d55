import numpy as np
import pytest

from bonsai.stages.tasks.predicting import READINGS
from bonsai.stages.tasks.registry import TASKS, task_named

CLASSES = ("cat", "dog", "bird")
N = 40


def drawn(task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs and targets of a task, some samples alike."""
    numbers = np.random.default_rng(seed)
    maps = (N, len(CLASSES), 6, 5) if task == "segmentation" else (N, len(CLASSES))
    outputs = numbers.standard_normal(maps).round(1).astype(np.float32)
    if task == "classification":
        return outputs, numbers.integers(0, len(CLASSES), N)
    if task == "multi_label":
        return outputs, numbers.integers(0, 2, (N, len(CLASSES))).astype(np.float32)
    if task == "regression":
        return outputs, numbers.standard_normal((N, len(CLASSES))).astype(np.float32)
    masks = numbers.integers(0, len(CLASSES), (N, 6, 5)).astype(np.uint8)
    masks[numbers.random(masks.shape) < 0.1] = 255
    return outputs, masks


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("seed", range(5))
def test_a_figure_is_that_of_the_judge_to_the_last_digit(name: str, seed: int) -> None:
    outputs, targets = drawn(name, seed)
    task, reading = task_named(name), READINGS[name]
    assert reading.figure([reading.observe(*pair) for pair in zip(outputs, targets, strict=True)]) == task.reduce(task.per_sample(outputs, targets))


def test_a_class_has_the_probability_of_its_softmax() -> None:
    found = READINGS["classification"].predict(np.array([0.0, np.log(3.0), -1e9], np.float32), CLASSES)
    assert found == {"class": "dog", "probability": pytest.approx(0.75)}
    assert READINGS["classification"].line(found) == ("dog", "75.00%")


def test_labels_are_those_of_at_least_one_half() -> None:
    found = READINGS["multi_label"].predict(np.array([0.0, -np.log(3.0), 5.0], np.float32), CLASSES)
    assert found["labels"] == ["cat", "bird"]
    assert found["probabilities"]["dog"] == pytest.approx(0.25)
    assert READINGS["multi_label"].line(found)[1] == "25.00%"


def test_figures_have_their_names() -> None:
    found = READINGS["regression"].predict(np.array([1.5, -2.0, 0.0], np.float32), CLASSES)
    assert found == {"values": {"cat": 1.5, "dog": -2.0, "bird": 0.0}}
    assert READINGS["regression"].columns(CLASSES) == CLASSES


def test_a_mask_has_the_highest_class_of_each_pixel() -> None:
    output = np.zeros((3, 2, 2), np.float32)
    output[1, 0], output[2, 1, 1] = 1, 1
    assert READINGS["segmentation"].mask(output).tolist() == [[1, 1], [0, 2]]  # type: ignore[attr-defined]
    assert READINGS["segmentation"].predict(output, CLASSES) == {"shares": {"cat": 0.25, "dog": 0.5, "bird": 0.25}}


@pytest.mark.parametrize(
    ("task", "cells", "problem"),
    [
        ("classification", {}, "no label"),
        ("classification", {"label": "cow"}, "cow: the label is one of the package's classes: cat, dog, bird"),
        ("multi_label", {"cat": "1", "dog": "2", "bird": "0"}, "a label is 0 or 1"),
        ("regression", {"cat": "1", "dog": "2"}, "no column `bird`"),
        ("regression", {"cat": "1", "dog": "2", "bird": "nan"}, "the numbers are finite"),
        ("segmentation", {"label": "cat"}, "no column `mask`"),
    ],
)
def test_cells_that_are_no_target_are_refused(task: str, cells: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        READINGS[task].target(cells, CLASSES)


def test_cells_become_targets_as_they_are_stored() -> None:
    label = READINGS["classification"].target({"label": "bird"}, CLASSES)
    assert (label.item(), label.dtype, label.shape) == (2, np.int64, ())
    found = READINGS["multi_label"].target({"bird": "1", "cat": "0", "dog": "1", "path": "x"}, CLASSES)
    assert (found.tolist(), found.dtype) == ([0, 1, 1], np.float32)
