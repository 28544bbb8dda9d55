"""Batches are a pure function of seed and step, wherever the samples come from and however many processes load them."""

from itertools import pairwise

import pytest
import torch

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.source import PreparedImages
from bonsai.stages.tasks.task import DataSpec
from bonsai.stages.training.batches import Batch, Batches, load_split
from bonsai.stages.training.config import AugmentConfig, TrainConfig

CONFIG = TrainConfig(batch_size=96, augment=AugmentConfig(rotate=10, shift=0.1, zoom=0.1))
PLAIN = CONFIG.model_copy(update={"augment": AugmentConfig()})


class Stripes(torch.utils.data.Dataset[tuple[torch.Tensor, float]]):
    """What anybody might have: samples made one by one, inputs already, with a number each to predict."""

    spec = DataSpec((1, 8, 8), 1)

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        return torch.full((1, 8, 8), index / 40), index / 2


@pytest.fixture
def source(digits: Dataset) -> PreparedImages:
    return PreparedImages(digits, "train")


def equal(found: Batch, expected: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_batch_depends_on_seed_and_step_alone(source: PreparedImages) -> None:
    first, again = Batches(source, CONFIG), Batches(source, CONFIG)
    again.batch(0)
    for step in (3, 1):
        assert equal(first.batch(step), again.batch(step))
    other = Batches(source, CONFIG.model_copy(update={"seed": 1}))
    assert not torch.equal(first.batch(3)[1], other.batch(3)[1])


def test_an_epoch_shows_no_image_twice(source: PreparedImages) -> None:
    plain = Batches(source, PLAIN)
    images = torch.cat([plain.batch(step)[0] for step in range(plain.per_epoch)])
    assert len(torch.unique(images.flatten(1), dim=0)) == len(images)


def test_the_order_is_drawn_by_seed_and_epoch(source: PreparedImages, digits: Dataset) -> None:
    images, labels = load_split(digits, "train")
    batches = Batches(source, PLAIN)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))  # of seed 0 and epoch 1
    second = batches.batch(batches.per_epoch + 2)
    assert equal(second, (images[order[192:288]], labels[order[192:288]]))
    assert second[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches_and_goes_on_within_an_epoch(source: PreparedImages, workers: int) -> None:
    alone, loaded = Batches(source, CONFIG), Batches(source, CONFIG.model_copy(update={"workers": workers}))
    steps = range(alone.per_epoch - 2, alone.per_epoch + 3)
    expected = [alone.batch(step) for step in steps]
    assert all(equal(loaded.batch(step), batch) for step, batch in zip(steps, expected, strict=True))
    resumed = Batches(source, CONFIG.model_copy(update={"workers": workers}))
    assert all(equal(resumed.batch(step), batch) for step, batch in list(zip(steps, expected, strict=True))[3:])
    assert not any(equal(one, other) for one, other in pairwise(expected))


def test_batches_leave_the_random_numbers_of_the_network_alone(source: PreparedImages) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Batches(source, CONFIG).batch(0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_any_map_style_dataset_is_a_source(workers: int) -> None:
    batches = Batches(Stripes(), TrainConfig(batch_size=10, workers=workers))
    images, targets = batches.batch(5)
    assert batches.per_epoch == 4
    assert images.shape == (10, 1, 8, 8)
    torch.testing.assert_close(images[:, 0, 0, 0].double(), targets / 20)


def test_a_source_smaller_than_a_batch_is_one_batch() -> None:
    batches = Batches(Stripes(), TrainConfig(batch_size=64))
    assert batches.per_epoch == 1
    assert sorted(batches.batch(7)[1].tolist()) == [index / 2 for index in range(40)]


class Uneven(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """90 samples of class 0, 8 of class 1, 2 of class 2."""

    spec = DataSpec((1, 4, 4), 3)
    targets = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((1, 4, 4), float(index)), int(self.targets[index])


def test_balanced_sampling_shows_every_class_as_often_as_any_other() -> None:
    batches = Batches(Uneven(), TrainConfig(batch_size=50, balance="sampling"))
    assert batches.per_epoch == 2
    drawn = torch.cat([batches.batch(step)[1] for step in range(40)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    assert float((shares - 1 / 3).abs().max()) < 0.03
    again = Batches(Uneven(), TrainConfig(batch_size=50, balance="sampling", workers=2))
    assert equal(again.batch(7), batches.batch(7))
    assert not equal(again.batch(8), batches.batch(6))


def test_samples_without_classes_cannot_be_balanced() -> None:
    with pytest.raises(ConfigError, match=r"training\.balance: there are no classes to balance"):
        Batches(Stripes(), TrainConfig(balance="sampling"))


def test_mixed_batches_are_a_function_of_the_step_too() -> None:
    config = TrainConfig.model_validate({"batch_size": 10, "augment": ["mixup", "cutmix"]})
    one, other = Batches(Uneven(), config), Batches(Uneven(), config.model_copy(update={"workers": 2}))
    assert all(equal(one.batch(step), other.batch(step)) for step in (3, 4, 5))
    assert one.batch(3)[1].shape == (10, 3)


def test_the_number_of_workers_is_no_part_of_what_is_trained() -> None:
    assert CONFIG.identity() == CONFIG.model_copy(update={"workers": 2}).identity() != PLAIN.identity()
