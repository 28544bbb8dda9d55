"""The accuracy gate that `bonsai init` writes is one that the test samples can prove."""

from pathlib import Path

import numpy as np
import pytest

from bonsai.pipeline.starting.gates import ALIKE, LEAST_DROP, choose_drop
from bonsai.pipeline.starting.samples import Samples, Seen
from bonsai.stages.tasks.intervals import least_provable_drop
from bonsai.stages.tasks.segmentation.judging import SEGMENTATION


def samples(task: str, targets: np.ndarray, test: int) -> Samples:
    return Samples(task, Path(), ("a", "b"), "", {"test": test}, frozenset(), targets, Seen((32, 32), None, 3, ()), ())


CLASSES = np.array([0, 1])


@pytest.mark.parametrize(("images", "drop"), [(20, 0.2), (75, 0.07), (450, 0.03), (5000, 0.02)])
def test_the_accuracy_gate_is_one_that_the_test_images_can_prove(images: int, drop: float) -> None:
    assert choose_drop(samples("classification", CLASSES, images))[0] == drop


def test_no_gate_is_written_that_the_test_images_cannot_meet() -> None:
    for images in (*range(1, 130), 188, 189, 360, 381, 550, 1000, 20000):
        drop = choose_drop(samples("classification", CLASSES, images))[0]
        assert LEAST_DROP <= drop <= 1
        assert least_provable_drop(images) <= drop
        assert least_provable_drop(images, ALIKE) <= drop


@pytest.mark.parametrize("images", [1, 2, 12, 120, 600, 5000])
def test_a_gate_of_masks_is_wide_enough_for_few_images_and_rare_classes(images: int) -> None:
    common, rare = np.zeros((40, 4, 4), np.uint8), np.zeros((40, 4, 4), np.uint8)
    common[:, 0], rare[:4, 0] = 1, 1
    drops = [choose_drop(samples("segmentation", masks, images))[0] for masks in (common, rare)]
    assert LEAST_DROP <= drops[0] <= drops[1] <= 1
    assert SEGMENTATION.provable(rare, images).drop <= drops[1] or drops[1] == 1
    assert drops[1] > 1.5 * drops[0] or images not in (12, 120)


def test_the_reason_says_what_is_assumed() -> None:
    why = choose_drop(samples("segmentation", np.tile(np.array([0, 1], np.uint8), (40, 4, 2)), 120))[1]
    assert "120 images cannot prove a drop below 0.032, even if no prediction changes, if the dense network's mIoU is near 1" in why
    assert "0.02 needs 191 images" in why
