"""Inputs out of a caller's batches."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from bonsai.pipeline.loop.batches import inputs_in
from bonsai.profiles.errors import ConfigError

IMAGES = torch.arange(4.0)[:, None, None, None].expand(4, 1, 2, 2)
LABELS = torch.arange(4)


@pytest.mark.parametrize(
    "batch",
    [IMAGES, IMAGES.numpy(), (IMAGES, LABELS), [IMAGES, LABELS], {"labels": LABELS, "pixel_values": IMAGES}],
    ids=["tensor", "array", "tuple", "list", "dict"],
)
def test_the_input_of_a_batch_is_found(batch: object) -> None:
    (found,) = inputs_in([batch], (1, 2, 2), "samples")
    assert torch.equal(found, IMAGES)


def test_a_single_tensor_is_one_batch() -> None:
    (found,) = inputs_in(IMAGES, (1, 2, 2), "samples")
    assert len(found) == 4


def test_no_more_batches_are_taken_than_asked_for() -> None:
    def endless() -> Iterator[torch.Tensor]:
        while True:
            yield IMAGES

    assert len(inputs_in(endless(), (1, 2, 2), "calibration", most=3)) == 3
    assert [len(each) for each in inputs_in(endless(), (1, 2, 2), "samples", samples=6)] == [4, 2]


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        (7, "samples cannot be iterated over"),
        ([], "samples yields no batch"),
        ([LABELS], r"no input of the example's shape[\s\S]*\(4,\) torch.int64"),
        ([np.zeros((4, 3, 2, 2), np.float32)], r"\(4, 3, 2, 2\)"),
        (["x"], "str"),
    ],
)
def test_other_batches_are_refused(batches: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        inputs_in(batches, (1, 2, 2), "samples")  # type: ignore[arg-type]


def test_an_error_of_the_loader_names_its_line() -> None:
    def broken() -> Iterator[torch.Tensor]:
        yield IMAGES
        raise KeyError("no such file")

    with pytest.raises(ConfigError, match=r"calibration raised an error[\s\S]*KeyError: 'no such file' \(test_batches_in_hand.py"):
        inputs_in(broken(), (1, 2, 2), "calibration")
