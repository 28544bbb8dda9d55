import math
from pathlib import Path

import pytest
import torch
from torch import nn

from stages.artifacts import Dataset
from stages.checkpoints import build
from stages.errors import TrainingDiverged
from stages.models.config import ModelConfig
from stages.training.batches import Batches, augment
from stages.training.config import AugmentConfig, TrainConfig
from stages.training.loop import learning_rate, make_optimizer, reestimate_batchnorm, reproducible, train_steps
from stages.training.phase import Phase
from stages.training.resume import optimizer_tensors, restore_optimizer

CONFIG = TrainConfig(epochs=2, batch_size=512, lr=0.02, augment=AugmentConfig(rotate=10, shift=0.1, zoom=0.1))


def fresh(small_model: ModelConfig, digits: Dataset) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = build(small_model, digits.image_shape, 10)
    return network, make_optimizer(network, CONFIG)


def test_a_batch_depends_on_seed_and_step_alone(digits: Dataset) -> None:
    first, again = Batches(digits, CONFIG), Batches(digits, CONFIG)
    again.batch(0)
    for step in (3, 1):
        assert torch.equal(first.batch(step)[0], again.batch(step)[0])
    other = Batches(digits, CONFIG.model_copy(update={"seed": 1}))
    assert not torch.equal(first.batch(3)[1], other.batch(3)[1])


def test_an_epoch_shows_no_image_twice(digits: Dataset) -> None:
    plain = Batches(digits, CONFIG.model_copy(update={"augment": AugmentConfig()}))
    images = torch.cat([plain.batch(step)[0] for step in range(plain.per_epoch)])
    assert len(torch.unique(images.flatten(1), dim=0)) == len(images)


def test_augmentation_moves_the_picture_and_nothing_at_zero() -> None:
    images = torch.rand(4, 1, 16, 16)
    generator = torch.Generator().manual_seed(0)
    assert augment(images, AugmentConfig(), generator) is images
    moved = augment(images, AugmentConfig(rotate=20, shift=0.2), generator)
    assert moved.shape == images.shape
    assert float(moved.min()) >= -1.0001
    assert not torch.equal(moved, images)


def test_the_cycle_rises_linearly_and_falls_along_a_cosine() -> None:
    config = TrainConfig(epochs=10, lr=1.0, warmup_epochs=2)
    assert learning_rate(0, config, per_epoch=5) == pytest.approx(0.1)
    assert learning_rate(9, config, per_epoch=5) == pytest.approx(1.0)
    assert learning_rate(30, config, per_epoch=5) == pytest.approx(0.5)
    assert learning_rate(50, config, per_epoch=5) == pytest.approx(0.0)


def test_vectors_are_not_decayed(small_model: ModelConfig, digits: Dataset) -> None:
    _, optimizer = fresh(small_model, digits)
    matrices, vectors = optimizer.param_groups
    assert all(p.ndim > 1 for p in matrices["params"])
    assert matrices["weight_decay"] == CONFIG.weight_decay
    assert vectors["weight_decay"] == 0


class Stopped(Exception):
    """Stands for a kill between two epochs."""


def test_a_killed_phase_ends_bit_equal_to_an_undisturbed_one(small_model: ModelConfig, digits: Dataset, tmp_path: Path) -> None:
    def run(folder: Path, *, kill: bool) -> tuple[dict[str, torch.Tensor], tuple[object, ...]]:
        network, optimizer = fresh(small_model, digits)
        phase = Phase("trunk", digits, CONFIG, folder)

        def stop_in_the_second_epoch(step: int) -> None:
            if kill and step > 0:
                raise Stopped

        with reproducible(CONFIG):
            history = phase.train(network, optimizer, (), start=0, stop=2 * phase.batches.per_epoch, before_epoch=stop_in_the_second_epoch)
        return {**network.state_dict(), **optimizer_tensors(network, optimizer)}, history

    expected, curve = run(tmp_path / "a", kill=False)
    with pytest.raises(Stopped):
        run(tmp_path / "b", kill=True)
    found, continued = run(tmp_path / "b", kill=False)
    assert continued == curve
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_optimizer_moments_round_trip(small_model: ModelConfig, digits: Dataset) -> None:
    network, optimizer = fresh(small_model, digits)
    train_steps(network, optimizer, Batches(digits, CONFIG), CONFIG, start=0, stop=1, label="t", rate=lambda _: 0.1)
    moments = optimizer_tensors(network, optimizer)
    assert len(moments) == len(list(network.parameters()))
    other, empty = fresh(small_model, digits)
    restore_optimizer(other, empty, moments)
    assert all(torch.equal(value, optimizer_tensors(other, empty)[name]) for name, value in moments.items())


def test_a_diverging_loss_ends_with_what_to_do(small_model: ModelConfig, digits: Dataset) -> None:
    network, optimizer = fresh(small_model, digits)
    with pytest.raises(TrainingDiverged, match=r"lower training\.lr"):
        train_steps(network, optimizer, Batches(digits, CONFIG), CONFIG, start=0, stop=40, label="t", rate=lambda _: math.inf)


def test_batchnorm_is_reestimated_from_training_batches(small_model: ModelConfig, digits: Dataset) -> None:
    network, _ = fresh(small_model, digits)
    network.bn1.running_mean.fill_(100.0)
    reestimate_batchnorm(network, Batches(digits, CONFIG), start=0, count=2)
    assert float(network.bn1.running_mean.abs().max()) < 10
    assert network.bn1.momentum == 0.1
