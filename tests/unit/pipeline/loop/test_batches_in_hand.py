"""Inputs out of a caller's batches."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from bonsai.pipeline.loop.batches import inputs_in
from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.forms import Form

IMAGES = torch.arange(4.0)[:, None, None, None].expand(4, 1, 2, 2)
LABELS = torch.arange(4)
NUMBERS = torch.arange(12.0).reshape(4, 3)
ONE = Form("tensor", ("0",), ((1, 2, 2),))
TWO, NAMED = (Form(kind, keys, ((1, 2, 2), (3,))) for kind, keys in (("tuple", ("0", "1")), ("dict", ("image", "numbers"))))


@pytest.mark.parametrize(
    "batch",
    [IMAGES, IMAGES.numpy(), (IMAGES, LABELS), [IMAGES, LABELS], {"labels": LABELS, "pixel_values": IMAGES}],
    ids=["tensor", "array", "tuple", "list", "dict"],
)
def test_the_input_of_a_batch_is_found(batch: object) -> None:
    (found,) = inputs_in([batch], ONE, "samples")
    assert torch.equal(found, IMAGES)


def test_a_single_tensor_is_one_batch() -> None:
    (found,) = inputs_in(IMAGES, ONE, "samples")
    assert len(found) == 4


def test_no_more_batches_are_taken_than_asked_for() -> None:
    def endless() -> Iterator[torch.Tensor]:
        while True:
            yield IMAGES

    assert len(inputs_in(endless(), ONE, "calibration", most=3)) == 3
    assert [len(each) for each in inputs_in(endless(), ONE, "samples", samples=6)] == [4, 2]


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
        inputs_in(batches, ONE, "samples")  # type: ignore[arg-type]


def test_an_error_of_the_loader_names_its_line() -> None:
    def broken() -> Iterator[torch.Tensor]:
        yield IMAGES
        raise KeyError("no such file")

    with pytest.raises(ConfigError, match=r"calibration raised an error[\s\S]*KeyError: 'no such file' \(test_batches_in_hand.py"):
        inputs_in(broken(), ONE, "calibration")


@pytest.mark.parametrize(
    ("form", "batches"),
    [
        (TWO, [(IMAGES, NUMBERS)]),
        (TWO, [[IMAGES, NUMBERS.numpy(), LABELS]]),
        (TWO, [((IMAGES, NUMBERS), LABELS)]),
        (TWO, (IMAGES, NUMBERS)),
        (NAMED, [{"numbers": NUMBERS, "image": IMAGES, "labels": LABELS}]),
        (NAMED, [({"numbers": NUMBERS, "image": IMAGES}, LABELS)]),
        (NAMED, {"image": IMAGES, "numbers": NUMBERS}),
    ],
    ids=["tuple", "with labels", "first", "a single tuple", "dict", "first dict", "a single dict"],
)
def test_several_inputs_of_a_batch_are_flattened_and_joined(form: Form, batches: object) -> None:
    (found,) = inputs_in(batches, form, "samples", samples=3)  # type: ignore[arg-type]
    assert torch.equal(found, torch.cat([IMAGES.flatten(1), NUMBERS], 1)[:3])


@pytest.mark.parametrize(
    ("form", "batch", "said"),
    [
        (TWO, (NUMBERS, IMAGES), r"\(4, 3\) torch.float32, \(4, 1, 2, 2\)[\s\S]*a tuple of the floating-point tensors \(n, 1, 2, 2\), \(n, 3\)"),
        (TWO, IMAGES, "a tuple of the floating-point tensors"),
        (TWO, (IMAGES, NUMBERS[:2]), "no input of the example's shape"),
        (TWO, (IMAGES, NUMBERS.long()), "torch.int64"),
        (NAMED, {"image": IMAGES, "labels": LABELS}, r"a dict of the floating-point tensors image \(n, 1, 2, 2\), numbers \(n, 3\)"),
    ],
    ids=["in another order", "one of them", "of another number", "whole numbers", "one is missing"],
)
def test_batches_without_all_inputs_are_refused(form: Form, batch: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        inputs_in([batch], form, "samples")
