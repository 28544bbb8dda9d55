import math
from pathlib import Path

import numpy as np
import pytest

from bonsai.profiles.schema import Precision
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.probes import compare_outputs, load_outputs, probe_images, save_outputs

LOGITS = np.random.default_rng(1).standard_normal((4, 10)).astype(np.float32)
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def test_the_images_are_always_the_same_and_differ_from_each_other() -> None:
    images = probe_images((3, 17, 5), 4)
    assert images.shape == (4, 3, 17, 5)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, probe_images((3, 17, 5), 9)[:4])
    means, deviations = images.mean((1, 2, 3)), images.std((1, 2, 3))
    assert np.ptp(means) > 0.2
    assert np.ptp(deviations) > 0.2


def test_logits_are_kept_beside_the_file(tmp_path: Path) -> None:
    save_outputs(tmp_path, LOGITS.T)
    np.testing.assert_array_equal(load_outputs(tmp_path), LOGITS.T)


@pytest.mark.parametrize(("precision", "rounding", "wrong"), [("fp32", 1e-4, 0.05), ("fp16", 0.1, 0.6), ("int8", 0.7, 1.6)])
def test_rounding_is_allowed_by_precision_and_other_numbers_are_not(precision: Precision, rounding: float, wrong: float) -> None:
    assert compare_outputs(LOGITS + rounding * LOGITS.std(), LOGITS, precision, "x.onnx") == pytest.approx(rounding, rel=0.2)
    with pytest.raises(BuildError, match=r"x\.onnx does not compute what the torch network computes.*differ by"):
        compare_outputs(LOGITS + wrong * LOGITS.std(), LOGITS, precision, "x.onnx")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_logits_of_another_network_are_refused(precision: Precision) -> None:
    with pytest.raises(BuildError, match="does not compute"):
        compare_outputs(2 * LOGITS[::-1] + 1, LOGITS, precision, "x.onnx")
    with pytest.raises(BuildError, match=r"outputs of shape \(4, 9\), torch of \(4, 10\)"):
        compare_outputs(LOGITS[:, :9], LOGITS, precision, "x.onnx")
    with pytest.raises(BuildError, match="the same outputs for every image"):
        compare_outputs(np.zeros_like(LOGITS), LOGITS, precision, "x.onnx")


def test_a_large_common_part_does_not_hide_a_difference_between_images() -> None:
    with pytest.raises(BuildError, match="does not compute"):
        compare_outputs(1000 + LOGITS[::-1], 1000 + LOGITS, "fp32", "x.onnx")


def test_overflow_is_a_fault_in_fp32_alone() -> None:
    overflown = np.where(LOGITS > 1, np.inf, LOGITS)
    assert math.isnan(compare_outputs(overflown, LOGITS, "fp16", "x.onnx"))
    assert math.isnan(compare_outputs(LOGITS, overflown, "fp32", "x.onnx"))
    with pytest.raises(BuildError, match="does not compute"):
        compare_outputs(overflown, LOGITS, "fp32", "x.onnx")
