import math
from pathlib import Path

import pytest
import torch
from hard_networks import FusedNorm, InPlaceInput, Plain
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.source import PreparedImages
from bonsai.stages.errors import DeviceUnavailable, TrainingDiverged
from bonsai.stages.networks.checkpoints import build
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.tasks.classification.learning import ClassificationLearning
from bonsai.stages.training.batches import Batches
from bonsai.stages.training.config import AugmentConfig, DistillConfig, TrainConfig
from bonsai.stages.training.distillation import Teacher
from bonsai.stages.training.evaluation import evaluate, reestimate_batchnorm
from bonsai.stages.training.loop import train_steps
from bonsai.stages.training.phase import Phase
from bonsai.stages.training.rates import learning_rate
from bonsai.stages.training.resume import load_progress
from bonsai.stages.training.state import TrainState, as_moment, reproducible, require_device

LEARNING = ClassificationLearning(TrainConfig())

CONFIG = TrainConfig(epochs=2, batch_size=512, lr=0.02, augment=AugmentConfig(rotate=10, shift=0.1, zoom=0.1))
KINDS = [{}, {"optimizer": "adamw"}, {"ema": 0.9}, {"precision": "bf16"}, {"precision": "fp16", "optimizer": "adamw", "ema": 0.9}]


def fresh(model: ModelConfig, digits: Dataset, config: TrainConfig = CONFIG) -> TrainState:
    return TrainState(build(model, digits.image_shape, 10), config)


def test_the_cycle_rises_linearly_and_falls_along_a_cosine() -> None:
    config = TrainConfig(epochs=10, lr=1.0, warmup_epochs=2)
    assert learning_rate(0, config, per_epoch=5) == pytest.approx(0.1)
    assert learning_rate(9, config, per_epoch=5) == pytest.approx(1.0)
    assert learning_rate(30, config, per_epoch=5) == pytest.approx(0.5)
    assert learning_rate(50, config, per_epoch=5) == pytest.approx(0.0)


def test_vectors_are_not_decayed(small_model: ModelConfig, digits: Dataset) -> None:
    matrices, vectors = fresh(small_model, digits).optimizer.param_groups
    assert all(p.ndim > 1 for p in matrices["params"])
    assert matrices["weight_decay"] == CONFIG.weight_decay
    assert vectors["weight_decay"] == 0


@pytest.mark.parametrize(("name", "device"), [("exp_avg", "meta"), ("momentum_buffer", "meta"), ("step", "cpu")])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_moment_is_restored_where_its_optimizer_expects_it(name: str, device: str, shape: tuple[int, ...]) -> None:
    scale = nn.Parameter(torch.empty(shape, device="meta"))  # "meta" stands for a GPU
    assert as_moment(name, torch.ones(() if name == "step" else shape), scale).device.type == device


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_moments_of_scales_without_a_dimension_survive_a_kill(optimizer: str) -> None:
    config = CONFIG.model_copy(update={"optimizer": optimizer})

    def stepped(state: TrainState) -> torch.Tensor:
        state.backward((state.network.scale * 3).square())
        state.step(0.1)
        return state.network.scale.detach().clone()

    one = TrainState(Scaled(), config)
    stepped(one)
    other = TrainState(Scaled(), config, one.tensors())
    other.network.load_state_dict(one.network.state_dict())
    assert torch.equal(stepped(one), stepped(other))


class GivesUp(Plain):
    """Fails at the fifth batch that it is trained on."""

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        self.batches = getattr(self, "batches", 0) + self.training
        return [x, x, x, x][self.batches - 1] if self.training else x


def test_an_error_of_the_network_during_training_is_told_and_what_is_trained_is_kept(digits: Dataset, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"batch_size": 256})
    phase = Phase("trunk", digits, config, tmp_path)
    assert 2 * phase.batches.per_epoch > 4 >= phase.batches.per_epoch
    state = TrainState(GivesUp(in_channels=1), config)
    with pytest.raises(ConfigError, match=r"given:   IndexError: list index out of range \(test_training\.py, line \d+\)"):
        phase.train(state, (), start=0, stop=2 * phase.batches.per_epoch)
    progress = load_progress(tmp_path)
    assert progress is not None
    assert progress[1]["step"] == phase.batches.per_epoch


def test_student_teacher_and_validation_see_the_images_as_they_are(digits: Dataset) -> None:
    network = InPlaceInput(in_channels=1)
    images, labels = Batches(PreparedImages(digits, "train"), CONFIG).batch(0)
    before = images.clone()
    first, again = (evaluate(network, images, labels, CLASSIFICATION) for _ in range(2))
    assert first == again
    with torch.no_grad():
        Teacher(network, DistillConfig()).loss(images, torch.zeros(len(images), 10), torch.zeros(()), LEARNING)
    assert torch.equal(images, before)


def test_a_batchnorm_of_somebodys_own_gets_its_statistics_too(digits: Dataset) -> None:
    network, plain = FusedNorm(in_channels=1), Plain(in_channels=1)
    batches = Batches(PreparedImages(digits, "train"), CONFIG)
    momentum = network.norm.momentum
    reestimate_batchnorm(network, batches, start=0, count=2)
    assert network.norm.momentum == momentum
    assert network.norm.running_var.min() < 1
    norm = plain.bn1
    with torch.no_grad():
        expected = torch.stack([plain.conv1(batches.batch(step)[0]).mean((0, 2, 3)) for step in range(2)]).mean(0)
    reestimate_batchnorm(plain, batches, start=0, count=2)
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-3, atol=1e-3)


class Scaled(nn.Module):
    """One scale without a dimension, as quantisers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))


class Stopped(Exception):
    """Stands for a kill between two epochs."""


@pytest.mark.parametrize("kind", KINDS[:-1], ids=str)  # fp16 is slow on a CPU; its state round-trips below
def test_a_killed_phase_ends_bit_equal_to_an_undisturbed_one(kind: dict[str, object], small_model: ModelConfig, digits: Dataset, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update=kind)

    def run(folder: Path, *, kill: bool) -> tuple[dict[str, torch.Tensor], tuple[object, ...]]:
        state = fresh(small_model, digits, config)
        phase = Phase("trunk", digits, config, folder)

        def stop_in_the_second_epoch(step: int) -> None:
            if kill and step > 0:
                raise Stopped

        with reproducible(config):
            history = phase.train(state, (), start=0, stop=2 * phase.batches.per_epoch, before_epoch=stop_in_the_second_epoch)
        return {**state.network.state_dict(), **state.tensors()}, history

    expected, curve = run(tmp_path / "a", kill=False)
    with pytest.raises(Stopped):
        run(tmp_path / "b", kill=True)
    found, continued = run(tmp_path / "b", kill=False)
    assert continued == curve
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_training_state_round_trips(kind: dict[str, object], small_model: ModelConfig, digits: Dataset) -> None:
    config = CONFIG.model_copy(update={**kind, "batch_size": 32})
    state = fresh(small_model, digits, config)
    train_steps(state, Batches(PreparedImages(digits, "train"), config), LEARNING, start=0, stop=2, label="t", rate=lambda _: 0.01)
    tensors = state.tensors()
    moments = [name for name in tensors if name.startswith(("momentum_buffer.", "exp_avg."))]
    assert len(moments) == len(list(state.network.parameters()))
    assert ("scaler.scale" in tensors) == (config.precision == "fp16")
    assert ("average.n_averaged" in tensors) == (config.ema is not None)
    other = TrainState(build(small_model, digits.image_shape, 10), config, tensors)
    other.require_live()
    found = other.tensors()
    assert set(found) == set(tensors)
    assert all(torch.equal(value, found[name]) for name, value in tensors.items())


def test_the_average_is_what_is_deployed(small_model: ModelConfig, digits: Dataset) -> None:
    config = CONFIG.model_copy(update={"ema": 0.5})
    state = fresh(small_model, digits, config)
    batches = Batches(PreparedImages(digits, "train"), config)
    seen = []
    for step in range(3):
        train_steps(state, batches, LEARNING, start=step, stop=step + 1, label="t", rate=lambda _: 0.05)
        seen.append(state.network.fc.weight.detach().clone())
    torch.testing.assert_close(state.deployed.fc.weight, 0.25 * seen[0] + 0.25 * seen[1] + 0.5 * seen[2])
    assert fresh(small_model, digits).deployed.fc.weight.shape == state.deployed.fc.weight.shape


def test_an_overflown_batch_moves_nothing(small_model: ModelConfig, digits: Dataset) -> None:
    state = fresh(small_model, digits, CONFIG.model_copy(update={"precision": "fp16"}))
    before = state.network.fc.weight.detach().clone()
    state.backward(state.network(torch.zeros(2, *digits.image_shape)).sum())
    state.step(0.0)
    scale = state.tensors()["scaler.scale"]
    assert not state.backward(state.network(torch.ones(2, *digits.image_shape)).sum() * 1e38 * 10)
    state.step(0.1)
    assert torch.equal(state.network.fc.weight, before)
    assert state.tensors()["scaler.scale"] < scale


def test_distillation_by_hand() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[2.0, 0.0]])

    teacher = Teacher(Fixed(), DistillConfig(weight=0.25, temperature=2.0))
    p, q = math.exp(1) / (math.exp(1) + 1), 0.5
    kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / q)
    found = teacher.loss(torch.zeros(1), torch.zeros(1, 2), torch.tensor(3.0), LEARNING)
    assert float(found) == pytest.approx(0.75 * 3 + 0.25 * 4 * kl, abs=1e-5)


def test_a_distilled_student_comes_closer_to_its_teacher(small_model: ModelConfig, digits: Dataset) -> None:
    config = CONFIG.model_copy(update={"batch_size": 128})
    batches = Batches(PreparedImages(digits, "train"), config)
    master = fresh(small_model, digits, config)
    train_steps(master, batches, LEARNING, start=0, stop=30, label="t", rate=lambda _: 0.02)
    images = batches.batch(40)[0]

    def distance(teacher: Teacher | None) -> float:
        state = fresh(small_model.model_copy(update={"seed": 5}), digits, config)
        train_steps(state, batches, LEARNING, start=0, stop=30, label="t", rate=lambda _: 0.02, teacher=teacher)
        with torch.no_grad():
            return float((state.network(images).softmax(1) - master.network(images).softmax(1)).abs().mean())

    assert distance(Teacher(master.network, DistillConfig(weight=1.0, temperature=2.0))) < 0.9 * distance(None)


def test_a_diverging_loss_ends_with_what_to_do(small_model: ModelConfig, digits: Dataset) -> None:
    batches = Batches(PreparedImages(digits, "train"), CONFIG)
    with pytest.raises(TrainingDiverged, match=r"lower training\.lr"):
        train_steps(fresh(small_model, digits), batches, LEARNING, start=0, stop=40, label="t", rate=lambda _: math.inf)


def test_batchnorm_is_reestimated_from_training_batches(small_model: ModelConfig, digits: Dataset) -> None:
    network = fresh(small_model, digits).network
    network.bn1.running_mean.fill_(100.0)
    reestimate_batchnorm(network, Batches(PreparedImages(digits, "train"), CONFIG), start=0, count=2)
    assert float(network.bn1.running_mean.abs().max()) < 10
    assert network.bn1.momentum == 0.1


def test_top1_by_hand() -> None:
    images = torch.eye(4).reshape(4, 4, 1, 1)
    assert evaluate(nn.Flatten(), images, torch.tensor([0, 1, 2, 0]), CLASSIFICATION) == 0.75


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_a_gpu_that_is_not_here_is_refused() -> None:
    with pytest.raises(DeviceUnavailable, match=r"training\.device is not in this machine"):
        require_device(CONFIG.model_copy(update={"device": "cuda"}))


def test_the_epochs_of_a_branch_end_with_it_wherever_it_began(small_model: ModelConfig, digits: Dataset, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"batch_size": 256})
    phase, begun = Phase("branch", digits, config, tmp_path), []
    per_epoch = phase.batches.per_epoch
    history = phase.train(fresh(small_model, digits, config), (), start=3, stop=3 + 2 * per_epoch, rate=lambda _: 0.01, before_epoch=begun.append)
    assert [line.step for line in history] == [3 + per_epoch, 3 + 2 * per_epoch]
    assert begun == [3, 3 + per_epoch]
