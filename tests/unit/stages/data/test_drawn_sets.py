"""What holds of every set that a program draws."""

from typing import Any

import numpy as np
import pytest
import torch
from given_samples import pixels

from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.loading import load_data
from bonsai.stages.data.registry import TEST, TRAIN, VALIDATION
from bonsai.stages.data.storing import Pixels
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store

SETS: dict[str, tuple[dict[str, int], str]] = {  # sizes of the parts, and the task
    "glyphs": ({"train": 124, "validation": 62, "test": 186}, "classification"),
    "scenes": ({"train": 30, "validation": 10, "test": 10}, "segmentation"),
    "vibration": ({"train": 70, "validation": 14, "test": 28}, "classification"),
}
each_set = pytest.mark.parametrize("name", SETS)


def draw(name: str, **options: Any) -> Pixels:
    return pixels(load_data(DataConfig(name=name, options={**SETS[name][0], **options})))


@each_set
def test_a_set_is_the_same_at_every_drawing_and_another_at_another_seed(name: str) -> None:
    first, again, other = draw(name), draw(name), draw(name, seed=1)
    assert torch.equal(first.images, again.images)
    assert np.array_equal(first.targets, again.targets)
    assert not torch.equal(first.images, other.images)


@each_set
def test_a_sample_does_not_depend_on_how_many_there_are(name: str) -> None:
    count = SETS[name][0]["train"]
    assert torch.equal(draw(name).images[:count], draw(name, train=2 * count).images[:count])


@each_set
def test_no_two_samples_are_alike_and_none_is_flat(name: str) -> None:
    samples = draw(name).images.flatten(1).float()
    assert len(samples.unique(dim=0)) == len(samples)
    assert float((samples.std(1) / (samples.max() - samples.min())).min()) > 0.015


@each_set
def test_the_sets_own_split_is_kept(name: str, store: Store) -> None:
    sizes, task = SETS[name]
    parts = draw(name).parts
    assert parts is not None
    assert [int((np.asarray(parts) == part).sum()) for part in (TRAIN, VALIDATION, TEST)] == list(sizes.values())
    assert store.run(prepare, data=DataConfig(name=name, options=sizes), content="", task=task).sizes == sizes
