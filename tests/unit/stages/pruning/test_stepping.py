"""A pruner that steps by itself does what a recipe does: several cuts, soft ones, regularisers; and on several ranks alike."""

import copy
import io
from pathlib import Path

import pytest
import torch
from tiny_chooser import make_chooser
from torch import distributed, multiprocessing, nn

from bonsai.profiles.errors import BudgetError, ConfigError
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.pruning.config import PruneConfig, RegulariserConfig
from bonsai.stages.pruning.epi import EpiConfig
from bonsai.stages.pruning.policy import PolicyConfig
from bonsai.stages.pruning.regularisers import make_regulariser
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.pruning.stepping import SteppingPruner

SHAPE, STEPS, FIRES, DENSE = (1, 16, 16), 24, 4, 16 + 16 + 32 + 32 + 64 + 64
EPI = EpiConfig(every=2 / STEPS, latest=0.5, window=1, monotone=0, tau=0.0)
"""A check every second step; EPI has its first value, and fires, at the second check."""


def config(**changes: object) -> PruneConfig:
    return PruneConfig(epi=EPI, **changes)  # type: ignore[arg-type]


class Loop:
    """A plain training of a small network."""

    def __init__(self, settings: PruneConfig, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.network = resnet8(in_channels=1, num_classes=10)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.05, momentum=0.9)
        self.chooser = make_chooser(self.network, SHAPE, settings)
        self.pruner = SteppingPruner(self.network, self.optimizer, SHAPE, chooser=self.chooser, steps=STEPS, window=4)
        self.cuts: list[tuple[int, int]] = []

    def train(self, start: int, stop: int, rank: int = 0, ranks: int = 1) -> "Loop":
        for step in range(start, stop):
            generator = torch.Generator().manual_seed(step)
            images, labels = torch.randn(8, *SHAPE, generator=generator)[rank::ranks], torch.randint(10, (8,), generator=generator)[rank::ranks]
            nn.functional.cross_entropy(self.network(images), labels).backward()
            self.pruner.observe()
            for parameter in self.network.parameters() if ranks > 1 else ():
                assert parameter.grad is not None
                distributed.all_reduce(parameter.grad)
                parameter.grad /= ranks
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.pruner.step():
                self.cuts.append((step + 1, sum(map(len, self.pruner.kept.values()))))
        return self

    def save(self) -> bytes:
        file = io.BytesIO()
        torch.save({"pruner": self.pruner.state_dict(), "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}, file)
        return file.getvalue()

    def load(self, saved: bytes) -> "Loop":
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.pruner.load_state_dict(state["pruner"])
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        return self


@pytest.mark.parametrize("name", ["linear", "geometric", "cubic"])
def test_several_cuts_come_at_their_steps_and_end_within_the_budget(name: str) -> None:
    schedule = ScheduleConfig(name=name, steps=3, iterations=2)
    loop = Loop(config(schedule=schedule)).train(0, STEPS)
    assert [step for step, _ in loop.cuts] == [FIRES, FIRES + 2, FIRES + 4]
    left = [channels for _, channels in loop.cuts]
    assert DENSE > left[0] > left[1] > left[2]
    kept = {group: len(channels) for group, channels in loop.pruner.kept.items()}
    assert loop.chooser.latency(kept) <= loop.chooser.limit_ms
    assert loop.pruner.finished
    assert [check.step for check in loop.pruner.history] == [2, 4]
    assert loop.pruner.history[0].epi is None
    assert loop.pruner.history[1].epi is not None


def test_soft_cuts_mask_until_the_last_and_channels_may_return() -> None:
    loop = Loop(config(schedule=ScheduleConfig(name="linear", steps=4, iterations=3, soft=True)))
    loop.train(0, FIRES)
    assert loop.cuts == []
    assert loop.pruner.trigger is not None
    seen: list[torch.Tensor] = []
    handle = loop.network.layer3[0].conv2.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    loop.network(torch.randn(2, *SHAPE)).sum()
    handle.remove()
    masked = int((seen[0].abs().amax((0, 2, 3)) == 0).sum())
    assert 0 < masked < 64
    loop.train(FIRES, STEPS)
    assert [step for step, _ in loop.cuts] == [FIRES + 9]
    assert not any(module._forward_pre_hooks for module in loop.network.modules())


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("killed_at", [FIRES - 1, FIRES, FIRES + 3, FIRES + 5])
def test_a_removal_killed_between_cuts_goes_on_to_the_same_bits(soft: bool, killed_at: int) -> None:
    settings = config(schedule=ScheduleConfig(name="linear", steps=3, iterations=3, soft=soft))
    whole, first = Loop(settings).train(0, STEPS), Loop(settings).train(0, killed_at)
    second = Loop(settings, seed=1).load(first.save()).train(killed_at, STEPS)
    assert first.cuts + second.cuts == whole.cuts
    assert second.pruner.kept == whole.pruner.kept
    assert all(torch.equal(value, whole.network.state_dict()[name]) for name, value in second.network.state_dict().items())


def test_cutting_now_needs_no_check_and_happens_once() -> None:
    loop = Loop(config(criterion="magnitude_l2"))
    assert loop.pruner.cut()
    with pytest.raises(ConfigError, match="cut already"):
        loop.pruner.cut()
    assert loop.chooser.latency({group: len(channels) for group, channels in loop.pruner.kept.items()}) <= loop.chooser.limit_ms
    assert loop.pruner.trigger is not None
    loop.train(0, STEPS)
    assert loop.cuts == []


@pytest.mark.parametrize("name", ["group_lasso", "bn_l1"])
def test_the_regulariser_is_added_behind_the_scores_until_the_cut(name: str) -> None:
    settings = RegulariserConfig(name=name, strength=1e-2)
    loop, plain = Loop(config(regulariser=settings)), Loop(config())
    for each in (loop, plain):
        images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(9))
        each.network(images).square().mean().backward()
        each.pruner.observe()
    assert all(torch.equal(vector, plain.pruner.scores()[group]) for group, vector in loop.pruner.scores().items())
    groups = tuple(group for group in plain.pruner.groups if group.name in plain.chooser.options)
    expected = make_regulariser(settings, plain.network, groups)
    assert expected is not None
    expected.add()
    found = {key: parameter.grad for key, parameter in loop.network.named_parameters()}
    assert all(torch.equal(parameter.grad, found[key]) for key, parameter in plain.network.named_parameters())
    loop.train(0, STEPS)
    assert loop.pruner.finished


def test_a_growing_penalty_goes_on_after_a_kill() -> None:
    settings = config(regulariser=RegulariserConfig(name="growing", strength=1e-4, growth=1e-2, every=1))
    whole, first = Loop(settings).train(0, FIRES), Loop(settings).train(0, 2)
    second = Loop(settings, seed=1).load(first.save()).train(2, FIRES)
    assert all(torch.equal(value, whole.network.state_dict()[name]) for name, value in second.network.state_dict().items())


def test_a_choice_that_fails_leaves_the_training_as_it_was() -> None:
    loop = Loop(config(criterion="magnitude_l2"))
    object.__setattr__(loop.chooser, "limit_ms", 1e-9)
    before = copy.deepcopy(loop.network.state_dict())
    with pytest.raises(BudgetError):
        loop.pruner.cut()
    assert not loop.pruner.finished
    assert all(torch.equal(value, before[name]) for name, value in loop.network.state_dict().items())


def _rank(rank: int, folder: Path, error: bool) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    loop = Loop(config())
    if error and rank == 0:
        object.__setattr__(loop.chooser, "limit_ms", 1e-9)
    try:
        loop.train(0, FIRES + 2, rank=rank, ranks=2)
        told = ""
    except BudgetError as raised:
        told = str(raised)
    torch.save({"kept": loop.pruner.kept, "weights": loop.network.state_dict(), "told": told, "scores": loop.pruner.scores()}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("error", [False, True])
def test_two_ranks_average_their_scores_and_cut_alike(tmp_path: Path, error: bool) -> None:
    multiprocessing.start_processes(_rank, (tmp_path, error), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["kept"] == second["kept"]
    assert first["told"] == second["told"]
    assert ("the latency budget cannot be met" in first["told"]) == error
    assert (sum(map(len, first["kept"].values())) < DENSE) != error
    assert all(torch.equal(vector, second["scores"][group]) for group, vector in first["scores"].items())
    moving = ("running_mean", "running_var")
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items() if not name.endswith(moving))


def test_a_policy_before_or_after_the_training_names_the_way_round() -> None:
    with pytest.raises(ConfigError, match=r"(?s)policy initialisation.*call `cut\(\)`"):
        Loop(config(policy=PolicyConfig(name="initialisation")))


@pytest.mark.parametrize(("call", "before"), [("cut", 0), ("step", 1)])
def test_a_criterion_of_gradients_that_has_seen_none_is_refused(call: str, before: int) -> None:
    loop = Loop(config())
    for _ in range(before):
        loop.pruner.step()
    with pytest.raises(ConfigError, match=r"bn_gradient has no gradients to score by[\s\S]*observe\(\)"):
        getattr(loop.pruner, call)()
    assert loop.pruner.kept == Loop(config()).pruner.kept


def test_a_criterion_of_weights_needs_no_observation() -> None:
    loop = Loop(config(criterion="magnitude_l2"))
    assert loop.pruner.cut()
