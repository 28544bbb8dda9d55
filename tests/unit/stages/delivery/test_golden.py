"""An engine has golden logits only if it gives the same ones again, alone and in a batch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bonsai.stages.delivery.golden import GOLDEN, read_golden, write_golden
from bonsai.stages.errors import BuildError

IMAGES = np.random.default_rng(0).standard_normal((3, 1, 4, 4)).astype(np.float32)
MATRIX = np.random.default_rng(1).standard_normal((16, 5)).astype(np.float32)
Run = Callable[[np.ndarray], np.ndarray]


def plain(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) @ MATRIX


def with_noise(size: float) -> Run:
    noise = np.random.default_rng(2)
    return lambda images: plain(images) + np.float32(size) * noise.standard_normal((len(images), 5)).astype(np.float32)


def normalised_over_the_batch(images: np.ndarray) -> np.ndarray:
    return plain(images - images.mean(0, keepdims=True) * (len(images) > 1))


def first_image_for_all(images: np.ndarray) -> np.ndarray:
    return np.repeat(plain(images[:1]), len(images), axis=0)


def no_number(images: np.ndarray) -> np.ndarray:
    return plain(images) * np.float32("nan")


def test_logits_that_are_the_same_again_are_kept(tmp_path: Path) -> None:
    write_golden(tmp_path, IMAGES, partial(map, plain), "logits")
    images, logits = read_golden(tmp_path)
    assert np.array_equal(images, IMAGES)
    assert np.allclose(logits, plain(IMAGES))


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (with_noise(1), r"run again on the same images[\s\S]*draws random numbers"),
        (with_noise(0.05), "run again on the same images"),
        (normalised_over_the_batch, r"run on 3 images at once instead of alone[\s\S]*computes over the batch"),
        (first_image_for_all, "run on 3 images at once"),
        (no_number, "outputs that are no numbers"),
    ],
)
def test_an_engine_without_logits_of_its_own_is_refused_and_the_difference_named(run: Run, problem: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=problem):
        write_golden(tmp_path, IMAGES, partial(map, run), "logits")
    assert not (tmp_path / GOLDEN).exists()


def test_another_rounding_in_a_batch_is_no_difference(tmp_path: Path) -> None:
    rounded = partial(map, lambda images: plain(images) * np.float32(1 + 0.001 * (len(images) > 1)))
    write_golden(tmp_path, IMAGES, rounded, "logits")
