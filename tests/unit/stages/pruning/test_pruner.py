"""The pruner in a plain PyTorch loop, and in the trunk."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_chooser import make_chooser
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.source import PreparedImages
from bonsai.stages.networks.checkpoints import build, load_scores, load_training
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.config import PruneConfig, RegulariserConfig
from bonsai.stages.pruning.epi import EpiConfig
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.pruning.indicator import Indicator
from bonsai.stages.pruning.policy import FinetuneConfig, PolicyConfig
from bonsai.stages.pruning.pruner import Plan, Pruner
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.stepping import SteppingPruner
from bonsai.stages.steps.initialise import initialise
from bonsai.stages.steps.prune import prune
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.store import Store
from bonsai.stages.tasks.classification.learning import ClassificationLearning
from bonsai.stages.training.batches import Batches
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.rates import learning_rate
from bonsai.stages.training.state import TrainState, reproducible

SHAPE, STEPS = (1, 16, 16), 20
CONFIG = PruneConfig(epi=EpiConfig(every=0.1, latest=0.5, window=1, monotone=0, tau=0.0))
"""Checks at steps 2, 4, 6, 8 and 10; EPI has its first value, and fires, at the second."""
FIRES = 4


class Loop:
    """A plain training: a network, an optimizer, a schedule, an average, and the pruner."""

    def __init__(self, optimizer: str = "sgd", config: PruneConfig = CONFIG) -> None:
        torch.manual_seed(0)
        self.network = resnet8(in_channels=1, num_classes=10)
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(self.network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
            if optimizer == "sgd"
            else torch.optim.AdamW(self.network.parameters(), lr=0.002)
        )
        self.scheduler = CosineAnnealingLR(self.optimizer, STEPS)
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)  # type: ignore[no-untyped-call]
        self.chooser = make_chooser(self.network, SHAPE, config)
        self.pruner = SteppingPruner(self.network, self.optimizer, SHAPE, chooser=self.chooser, averages=[self.average], steps=STEPS, window=4)
        self.cuts: list[int] = []

    def train(self, start: int, stop: int) -> None:
        for step in range(start, stop):
            generator = torch.Generator().manual_seed(step)
            images, labels = torch.randn(8, *SHAPE, generator=generator), torch.randint(10, (8,), generator=generator)
            nn.functional.cross_entropy(self.network(images), labels).backward()
            self.pruner.observe()
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            self.average.update_parameters(self.network)
            if self.pruner.step():
                self.cuts.append(step + 1)

    @property
    def parts(self) -> dict[str, Any]:
        return {"network": self.network, "optimizer": self.optimizer, "scheduler": self.scheduler, "average": self.average}

    def save(self) -> bytes:
        file = io.BytesIO()
        torch.save({"pruner": self.pruner.state_dict()} | {name: part.state_dict() for name, part in self.parts.items()}, file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.pruner.load_state_dict(state["pruner"])
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def tensors_of(loop: Loop) -> list[torch.Tensor]:
    moments = [value for state in loop.optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    return [*loop.network.state_dict().values(), *loop.average.state_dict().values(), *moments]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_plain_loop_is_cut_to_its_budget_once_and_trains_on(optimizer: str) -> None:
    loop = Loop(optimizer)
    dense, held = loop.network, loop.optimizer
    loop.train(0, STEPS)
    assert loop.cuts == [FIRES]
    widths = {name: len(channels) for name, channels in loop.pruner.kept.items()}
    assert 0.8 * loop.chooser.limit_ms < loop.chooser.latency(widths) <= loop.chooser.limit_ms
    assert (loop.network, loop.optimizer) == (dense, held)
    assert loop.network.conv1.out_channels == len(loop.network.conv1.weight) == widths["conv1"]
    parameters = list(loop.network.parameters())
    assert [id(p) for p in loop.optimizer.param_groups[0]["params"]] == [id(p) for p in parameters] == [id(p) for p in loop.optimizer.state]
    assert all(value.shape in ((), p.shape) for p, state in loop.optimizer.state.items() for value in state.values() if isinstance(value, torch.Tensor))
    assert {name: p.shape for name, p in loop.average.module.named_parameters()} == {name: p.shape for name, p in loop.network.named_parameters()}
    assert loop.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)  # the schedule went on to its end
    assert loop.pruner.trigger is not None
    assert (loop.pruner.trigger.check, loop.pruner.trigger.stable) == (2, True)
    assert all(torch.isfinite(value).all() for value in tensors_of(loop))


@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", ["momentum_buffer"]), ("adamw", ["exp_avg", "exp_avg_sq"])])
def test_moments_and_averages_keep_what_their_parameters_keep(optimizer: str, moments: list[str]) -> None:
    loop = Loop(optimizer)
    loop.train(0, 2)
    plan = Plan(kept={"conv1": (1, 3, 4, 7), "layer1.0.conv1": (0, 2)})
    before = {name: dict(loop.optimizer.state[p]) for name, p in loop.network.named_parameters()}
    average = copy.deepcopy(loop.average.module.state_dict())
    loop.pruner.apply(plan)
    after = {name: loop.optimizer.state[p] for name, p in loop.network.named_parameters()}
    stream, inner = [1, 3, 4, 7], [0, 2]
    for moment in moments:
        assert torch.equal(after["layer1.0.conv1.weight"][moment], before["layer1.0.conv1.weight"][moment][inner][:, stream])
        assert torch.equal(after["layer1.0.bn2.bias"][moment], before["layer1.0.bn2.bias"][moment][stream])
        assert torch.equal(after["fc.weight"][moment], before["fc.weight"][moment])
    assert torch.equal(loop.average.module.bn1.running_var, average["bn1.running_var"][stream])
    assert all(p.grad is None for p in loop.network.parameters())
    assert not loop.pruner.step()  # what was cut by hand is not cut again
    assert loop.pruner.check() is None


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("killed_at", [3, FIRES, FIRES + 3])
def test_a_killed_loop_goes_on_to_the_same_bits(optimizer: str, killed_at: int) -> None:
    whole, first, second = Loop(optimizer), Loop(optimizer), Loop(optimizer)
    whole.train(0, STEPS // 2)
    first.train(0, killed_at)
    second.load(first.save())
    second.train(killed_at, STEPS // 2)
    assert first.cuts + second.cuts == whole.cuts == [FIRES]
    assert second.pruner.kept == whole.pruner.kept
    assert second.pruner.trigger == whole.pruner.trigger
    assert all(torch.equal(one, other) for one, other in zip(tensors_of(second), tensors_of(whole), strict=True))


def test_a_check_tells_what_a_step_would_cut_and_changes_nothing() -> None:
    loop = Loop()
    loop.train(0, 2)
    assert loop.pruner.check() is not None  # EPI has its second sub-network now
    loop.train(2, FIRES - 1)
    before = loop.save()
    plan = loop.pruner.check()
    assert plan is not None
    assert loop.save() == before
    loop.pruner.apply(plan)
    assert loop.pruner.trigger == plan.trigger
    assert {name: loop.pruner.kept[name] for name in plan.kept} == plan.kept


def test_a_network_keeps_its_layout_through_the_cut() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        network = resnet8(in_channels=1, num_classes=10).to(memory_format=layout)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        Pruner(network, optimizer, SHAPE).apply(Plan(kept={"layer1.0.conv1": (0, 2, 5)}))
        assert network.layer1[0].conv2.weight.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("value", "told"), [(torch.zeros(3), r"of shape \(3,\)"), ([torch.zeros(3)], "a list")])
def test_an_optimizer_that_cannot_be_cut_is_named_and_nothing_is_changed(value: object, told: str) -> None:
    loop = Loop()
    loop.train(0, 2)
    loop.optimizer.state[loop.network.conv1.weight]["rows"] = value
    before = [tensor.clone() for tensor in tensors_of(loop)]
    with pytest.raises(ConfigError, match=rf"SGD cannot continue after a cut\n.*its `rows` of conv1.weight, {told}"):
        loop.pruner.apply(Plan(kept={"conv1": (0, 1)}))
    assert all(torch.equal(one, other) for one, other in zip(before, tensors_of(loop), strict=True))
    assert loop.pruner.edit.kept == ()


def test_an_average_of_another_network_is_refused() -> None:
    network = resnet8(in_channels=1, num_classes=10)
    pruner = Pruner(network, torch.optim.SGD(network.parameters(), lr=0.1), SHAPE, averages=[resnet8(in_channels=1, num_classes=9)])
    with pytest.raises(ConfigError, match=r"(?s)another structure than the network.*fc\.bias, fc\.weight"):
        pruner.apply(Plan(kept={"conv1": (0, 1)}))


def test_a_state_is_refused_by_a_network_with_other_cuts() -> None:
    first, second = Loop(), Loop()
    first.pruner.apply(Plan(kept={"conv1": (0, 1)}))
    second.pruner.apply(Plan(kept={"conv1": (0, 2)}))
    with pytest.raises(ConfigError, match="has other cuts than this state"):
        second.pruner.load_state_dict(first.pruner.state_dict())


def test_a_state_of_another_network_is_refused_and_nothing_is_changed() -> None:
    network, loop = resnet8(in_channels=1, num_classes=10, width=8), Loop()
    loop.pruner.apply(Plan(kept={"conv1": (0, 15)}))
    pruner = Pruner(network, torch.optim.SGD(network.parameters(), lr=0.1), SHAPE)
    with pytest.raises(ConfigError, match="the cut belongs to another network"):
        pruner.load_state_dict(loop.pruner.state_dict())
    with pytest.raises(ConfigError, match=r"(?s)state belongs to another network.*given: +conv1 16.*allowed: +conv1 8"):
        pruner.load_state_dict(Loop().pruner.state_dict())
    assert network.conv1.out_channels == 8


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"policy": PolicyConfig(name="trained", finetune=FinetuneConfig())}, "policy trained"),
        ({"policy": PolicyConfig(name="initialisation")}, "policy initialisation"),
        ({"blocks": True}, "blocks"),
        ({"resolutions": (8,)}, "resolutions"),
    ],
)
def test_a_loop_of_ones_own_refuses_what_only_a_recipe_does(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=f"given:   {told}"):
        Loop(config=CONFIG.model_copy(update=changes))


def test_a_training_too_short_for_epi_is_refused() -> None:
    network = resnet8(in_channels=1, num_classes=10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="too short for EPI to fire"):
        SteppingPruner(network, optimizer, SHAPE, chooser=make_chooser(network, SHAPE), steps=5)


@pytest.mark.parametrize("kind", [{}, {"optimizer": "adamw", "ema": 0.5}], ids=str)
def test_a_loop_and_a_recipe_with_the_same_seeds_fire_at_the_same_check_and_end_in_the_same_bits(
    kind: dict[str, object], small_model: ModelConfig, digits: Dataset, tmp_path: Path
) -> None:
    training = TrainConfig(epochs=1, batch_size=64, lr=0.02, threads=1, **kind)  # type: ignore[arg-type]
    batches, learning, store = Batches(PreparedImages(digits, "train"), training), ClassificationLearning(training), Store(tmp_path / "store")
    chooser = make_chooser(build(small_model, digits.image_shape, 10), digits.image_shape, CONFIG)

    segment = store.run(initialise, dataset=digits, model=small_model, weights=None)
    indicator = Indicator(CONFIG.policy, CONFIG.epi, CONFIG.criterion)
    for check in (2, FIRES):
        segment = store.run(train_dense, dataset=digits, training=training, regulariser=RegulariserConfig(), regularised=(), previous=segment, stop=check)
        indicator = indicator.after(chooser.keep(load_scores(segment, CONFIG.criterion)), check / batches.per_epoch)
    cut = store.run(
        prune,
        dense=segment,
        plan=WidthPlan(widths=chooser.fit(load_scores(segment, CONFIG.criterion)).widths),
        reselection=None,
        dataset=digits,
        training=training,
        criterion=CONFIG.criterion,
        schedule=ScheduleConfig(),
        finetune=None,
        batchnorm_batches=1,
    )
    by_recipe = load_training(cut, training)

    with reproducible(training):
        own = TrainState(build(small_model, digits.image_shape, 10), training)  # network, optimizer and average, made with the recipe's settings
        averages = [own.average] if own.average else []
        pruner = SteppingPruner(
            own.network,
            own.optimizer,
            digits.image_shape,
            chooser=chooser,
            averages=averages,
            steps=STEPS,
            steps_per_epoch=batches.per_epoch,
            window=training.score_window,
        )
        for step in range(FIRES):
            for group in own.optimizer.param_groups:
                group["lr"] = learning_rate(step, training, batches.per_epoch)
            images, labels = batches.batch(step)
            learning.loss(own.network(images), labels).backward()  # type: ignore[no-untyped-call]
            pruner.observe()
            own.optimizer.step()
            own.optimizer.zero_grad()
            for average in averages:
                average.update_parameters(own.network)
            assert pruner.step() is (step + 1 == FIRES)

    assert pruner.trigger == indicator.trigger(latest=False)
    assert pruner.kept == cut.kept
    assert (pruner.edit,) == cut.edits
    expected, found = by_recipe.tensors(), own.tensors()
    assert found.keys() == expected.keys()
    shifted = ("running_mean", "running_var", "num_batches_tracked")  # the stage estimates BatchNorm's statistics again
    assert all(torch.equal(found[name], value) for name, value in expected.items() if not name.endswith(shifted))
    parameters = dict(by_recipe.network.named_parameters())
    assert all(torch.equal(value, parameters[name]) for name, value in own.network.named_parameters())
