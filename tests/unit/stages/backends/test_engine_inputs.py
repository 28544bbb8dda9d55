"""What an engine of several inputs is fed with."""

import numpy as np

from bonsai.stages.backends.running import feeder, in_batches, parts_of


def test_several_inputs_are_taken_apart_in_the_order_of_the_file() -> None:
    joined = np.arange(14.0).reshape(2, 7)
    image, numbers = parts_of(joined, [(1, 2, 2), (3,)])
    np.testing.assert_array_equal(image, [[[[0, 1], [2, 3]]], [[[7, 8], [9, 10]]]])
    np.testing.assert_array_equal(numbers, [[4, 5, 6], [11, 12, 13]])
    assert {name: part.shape for name, part in feeder({"image": (1, 2, 2), "numbers": (3,)})(joined).items()} == {"image": (2, 1, 2, 2), "numbers": (2, 3)}


def test_a_single_input_is_fed_as_it_is() -> None:
    images = np.zeros((2, 3, 4))
    assert feeder({"pixels": (3, 4)})(images)["pixels"] is images
    assert parts_of(images, [(3, 4)])[0] is images


def test_a_fixed_batch_is_filled_up_for_all_inputs() -> None:
    seen = []
    feeds = feeder({"image": (1, 2, 2), "numbers": (3,)})

    def run(joined: np.ndarray) -> np.ndarray:
        seen.append({name: part.shape for name, part in feeds(joined).items()})
        return joined

    assert in_batches(run, 4)(np.zeros((5, 7))).shape == (5, 7)
    assert seen == [{"image": (4, 1, 2, 2), "numbers": (4, 3)}] * 2
