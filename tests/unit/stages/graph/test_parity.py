import numpy as np
import pytest
import torch
from torch import nn

from bonsai.stages.errors import BuildError
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.graph.parity import BATCH, allowed_to_differ, compare, require_parity
from bonsai.stages.tasks.classification.judging import CLASSIFICATION


class Widest(nn.Module):
    """Notes the largest batch that it was run with."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 10)
        self.largest = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.largest = max(self.largest, len(x))
        return self.head(x.flatten(1))


def flipped(network: nn.Module, images: torch.Tensor, count: int) -> dict[str, float]:
    """Return the parity with a file that takes `count` images for another class, by a hair."""
    with torch.no_grad():
        logits = network(images).numpy()
    changed = logits.copy()
    order = np.argsort(logits, axis=1)
    for row in range(count):
        changed[row, order[row, -2]] = logits[row, order[row, -1]] + 1e-6
    given = iter(np.split(changed, range(BATCH, len(images), BATCH)))
    return compare(network, lambda _: next(given), images, CLASSIFICATION)


@pytest.mark.parametrize("count", [10, BATCH, BATCH + 1, 300])
def test_no_more_than_a_batch_is_run_at_a_time(count: int) -> None:
    network, sizes = Widest(), list[int]()

    def run(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        with torch.no_grad():
            return network(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]

    found = compare(network, run, torch.randn(count, 1, 4, 4), CLASSIFICATION)
    assert (found["agreement"], found["images"]) == (1, count)
    assert max(network.largest, *sizes) <= BATCH
    assert sum(sizes) == count


@pytest.mark.parametrize(
    ("images", "least", "allowed"), [(45, 0.98, 1), (1, 0.98, 1), (50, 0.98, 1), (100, 0.98, 2), (1000, 0.98, 20), (45, 1, 0), (10, 0, 10), (45, 0.999, 1)]
)
def test_images_that_may_differ_are_counted_whole(images: int, least: float, allowed: int) -> None:
    assert allowed_to_differ(images, least) == allowed


def test_one_image_of_few_between_two_classes_ends_no_run_and_two_do() -> None:
    torch.manual_seed(0)
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), torch.randn(45, 1, 4, 4)
    require_parity(flipped(network, images, 1), ExportConfig())
    with pytest.raises(BuildError, match=r"the prediction differs on 2 of 45 images.*at most 1 may differ"):
        require_parity(flipped(network, images, 2), ExportConfig(max_mean_difference=1))
    with pytest.raises(BuildError, match="at most 0 may differ"):
        require_parity(flipped(network, images, 1), ExportConfig(min_agreement=1))


def test_logits_that_are_no_numbers_are_refused() -> None:
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), torch.randn(45, 1, 4, 4)
    with pytest.raises(BuildError, match="does not follow the torch network"):
        require_parity(compare(network, lambda x: np.full((len(x), 10), np.nan, np.float32), images, CLASSIFICATION), ExportConfig())
