"""A pruner that decides by itself: it counts optimizer steps, asks the policy at its checks, and cuts as far as a budget asks.

    pruner = SteppingPruner(network, optimizer, image_shape, chooser=chooser, steps=total_steps)
    for images, labels in loader:
        loss(network(images), labels).backward()
        pruner.observe()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()

`Indicator` decides when to cut and `Chooser` how wide the network stays, as in a recipe's run.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from torch import nn
from torch.optim import Optimizer

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.stages.networks.edits.records import KeepChannels
from bonsai.stages.pruning.config import require_own_loop
from bonsai.stages.pruning.criteria import OF_WEIGHTS
from bonsai.stages.pruning.cuts import Cuts
from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.pruning.groups import Group, Kept, Widths
from bonsai.stages.pruning.indicator import Indicator
from bonsai.stages.pruning.policy import check_steps
from bonsai.stages.pruning.pruner import STATISTICS, Plan, Pruner
from bonsai.stages.pruning.ranks import averaged, decided_by_first
from bonsai.stages.pruning.regularisers import Regulariser, make_regulariser
from bonsai.stages.pruning.scores import Scores, best_channels
from bonsai.stages.pruning.soft import Masks
from bonsai.stages.selection.chooser import Chooser
from bonsai.stages.selection.loop import Fit, Measured
from bonsai.stages.training.progress import say

PENALTY = "penalty"


class Check(NamedTuple):
    """One look at the structure of the network.

    Attributes:
        step: Optimizer step.
        epi: EPI; None where there were too few checks before.
        widths: Channels that the budget would have kept, by group.
    """

    step: int
    epi: float | None
    widths: Widths


class _Removal(Record):
    """Where a removal in steps stands."""

    dense: Widths
    final: Widths
    done: int
    next: int
    masked: dict[str, tuple[int, ...]] = {}
    returned: int = 0


class _Progress(Record):
    """Where the training stands."""

    steps: int
    seen: tuple[dict[str, tuple[int, ...]], ...]
    epochs: tuple[float, ...]
    trigger: Trigger | None = None
    fit: Fit | None = None
    removal: _Removal | None = None


class SteppingPruner(Pruner):
    """Prunes once the structure of a network in training is stable.

    Where training is distributed, every rank makes one and calls it alike: scores are averaged over the ranks, and the first rank chooses the widths.

    Args:
        network: As for `Pruner`, like `optimizer`, `image_shape`, `groups`, `averages` and `window`.
        optimizer: Optimizer of the network.
        image_shape: (channels, height, width) of one image.
        chooser: Chooses widths within a budget. Its config says when, in how many cuts, and by which criterion.
        groups: Groups of the network, if they are known already.
        averages: Moving averages of the network.
        measure: Times an untrained network of given widths; None trusts the chooser's prediction.
        doubt: Returns the upper end over the latency of a network that nobody has timed yet.
        steps: Optimizer steps of the whole training. The config places the checks at fractions of it.
        steps_per_epoch: Optimizer steps of an epoch, for the policy ``epoch``. With 1, an epoch is a step.
        window: Batches that criteria of batches are averaged over.

    Attributes:
        trigger: The policy's reason for the cut. None before it.
        fit: The widths that were chosen then, and how.

    Raises:
        ConfigError: The chooser's config needs a recipe, or `steps` are too few for its policy.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        image_shape: tuple[int, ...],
        *,
        chooser: Chooser,
        groups: tuple[Group, ...] | None = None,
        averages: Sequence[nn.Module] = (),
        measure: Callable[[Widths], Measured] | None = None,
        doubt: Callable[[], float] = lambda: 1.0,
        steps: int,
        steps_per_epoch: int = 1,
        window: int = 40,
    ) -> None:
        config = chooser.config
        require_own_loop(config)
        self._checks = check_steps(config.policy, config.epi, total=steps, per_epoch=steps_per_epoch)
        given: dict[str, Any] = {"criterion": config.criterion, "criteria": (config.criterion,), "groups": groups}
        super().__init__(network, optimizer, image_shape, averages=averages, window=window, **given)
        self.trigger: Trigger | None = None
        self.fit: Fit | None = None
        self._chooser, self._measure, self._doubt = chooser, measure, doubt
        self._indicator = Indicator(config.policy, config.epi, config.criterion)
        self._steps, self._per_epoch, self._next = 0, steps_per_epoch, 0
        self._cuts: Cuts | None = None
        self._masked: Kept = {}
        self._masking = ExitStack()
        self._penalty: Regulariser | None = make_regulariser(config.regulariser, network, self._prunable)

    @property
    def finished(self) -> bool:
        """Whether nothing more will be cut."""
        return self._cuts.finished if self._cuts else self.edit != KeepChannels()

    @property
    def history(self) -> tuple[Check, ...]:
        """The checks so far."""
        seen = self._indicator.seen
        steps = [round(epoch * self._per_epoch) for epoch in self._indicator.epochs]
        return tuple(
            Check(step, epi, {name: len(channels) for name, channels in kept.items()})
            for step, epi, kept in zip(steps, self._indicator.curve, seen, strict=True)
        )

    def observe(self) -> None:
        """Add the gradients of a batch, and the regulariser's to them. Call it after backward, before the optimizer's step.

        Gradients must be unscaled by then, and whole where they are accumulated over several batches.
        """
        if self.finished:
            return
        super().observe()
        if self._penalty and self.trigger is None:
            self._penalty.add()

    def step(self) -> bool:
        """Count an optimizer step. At a check, ask the policy, and cut the network if it fires; and go on where the schedule has several cuts.

        Returns:
            Whether the network was cut. Wrap or compile it again then.

        Raises:
            ConfigError: The optimizer cannot be cut, or a criterion of gradients has observed no batch.
            BudgetError: Even the narrowest network is above the budget.
            Uncuttable: The cut network does not compute what it should. The training is left as it was.
        """
        self._steps += 1
        if self._cuts and not self._cuts.finished:
            return self._steps == self._next and self._cut(self.scores())
        if self.finished or self._steps not in self._checks:
            return False
        self._indicator = self._look()
        if self._indicator.policy.name == "epi":
            say(f"pruner: {self._indicator.sentence}")
        trigger = self._indicator.trigger(latest=self._steps >= self._checks[-1])
        return trigger is not None and self._begin(trigger)

    def cut(self) -> bool:
        """Begin to cut now, whatever the policy says, by the scores so far; True where the network was cut.

        Raises:
            ConfigError: It was cut already, the optimizer cannot be cut, or a criterion of gradients has observed no batch.
            BudgetError: Even the narrowest network is above the budget.
            Uncuttable: The cut network does not compute what it should.
        """
        if self._cuts or self.finished:
            raise ConfigError(describe("the network was cut already", given="a second cut", allowed="one removal", fix="make a new pruner for another"))
        self._indicator = self._look()
        return self._begin(self._indicator.leave(self._steps / self._per_epoch, stable=False))

    def check(self) -> Plan | None:
        """Return what a check at this step would cut at once, or None if the policy does not fire. Nothing is changed."""
        if self.finished or self._cuts:
            return None
        trigger = self._look().trigger(latest=self._steps >= self._checks[-1])
        if trigger is None:
            return None
        scores = self.scores()
        return Plan(kept=best_channels(scores, self._fit(scores).widths), trigger=trigger)

    def apply(self, plan: Plan) -> None:
        """See `Pruner.apply`."""
        super().apply(plan)
        self.trigger = self.trigger or plan.trigger
        if plan.trigger:
            say(f"pruner: step {self._steps}: cut {plan.trigger.sentence}")

    def scores(self) -> Scores:
        """Return the channels' scores by group, (width,) float32 on the CPU, averaged over the ranks of a distributed training."""
        return averaged(super().scores())

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, as plain values and CPU tensors, without weights and moments."""
        removal = None
        if self._cuts and not self._cuts.finished:
            returned = self.masks.returned if self.masks else 0
            cuts = {"dense": self._cuts.dense, "final": self._cuts.final, "done": self._cuts.done, "next": self._next}
            removal = _Removal(**cuts, masked=self._masked, returned=returned)
        seen, epochs = self._indicator.seen, self._indicator.epochs
        progress = _Progress(steps=self._steps, seen=seen, epochs=epochs, trigger=self.trigger, fit=self.fit, removal=removal)
        penalty = self._penalty.state() if self._penalty and self.trigger is None else {}
        return {**super().state_dict(), **progress.model_dump(mode="json"), PENALTY: penalty}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Pruner.load_state_dict`."""
        super().load_state_dict(state)
        progress = _Progress.model_validate({name: state[name] for name in _Progress.model_fields})
        self.trigger, self.fit, self._steps = progress.trigger, progress.fit, progress.steps
        self._indicator = Indicator(self._indicator.policy, self._indicator.epi, self._criterion, progress.seen, progress.epochs)
        if self._penalty and state[PENALTY]:
            self._penalty.restore(state[PENALTY])
        self._masking.close()
        self._cuts = None
        if removal := progress.removal:
            self._next = removal.next
            self._cuts = self._cuts_to(removal.dense, removal.final, done=removal.done)
            if removal.masked:
                self._mask({name: tuple(channels) for name, channels in removal.masked.items()}, returned=removal.returned)
                self.restore(state[STATISTICS])

    def _begin(self, trigger: Trigger) -> bool:
        scores = self.scores()
        self.fit = self._fit(scores)
        self._cuts = self._cuts_to({name: len(self.kept[name]) for name in self.fit.widths}, self.fit.widths)
        try:
            return self._cut(scores, trigger)
        except BaseException:
            self._cuts = None  # the training is as it was
            raise

    def _cut(self, scores: Scores, trigger: Trigger | None = None) -> bool:
        assert self._cuts is not None
        kept = self._cuts.advance(scores, self.groups)
        self._next = self._steps + self._cuts.schedule.iterations
        if self._cuts.masks:
            self._mask(kept)
            self.trigger = self.trigger or trigger
            return False
        self._masking.close()
        self.apply(Plan(kept=kept, trigger=trigger))
        return True

    def _mask(self, kept: Kept, returned: int = 0) -> None:
        """Keep all other channels at zero until they come back or are cut."""
        if self.masks is None:
            self.masks = Masks(self._network, self.groups)
            observed = self.statistics.state()
            self._statistics = None  # which score masked channels by their masks
            self.restore(observed)
            self._masking.enter_context(self.masks.enforced())
        self.masks.set(kept)
        self.masks.returned = returned or self.masks.returned
        self._masked = kept

    def _cuts_to(self, dense: Widths, final: Widths, done: int = 0) -> Cuts:
        assert self.fit is not None
        schedule, reselection = self._chooser.config.schedule, self._chooser.reselection(self.fit.predicted_ms)

        def choose(scores: Scores, groups: tuple[Group, ...]) -> Widths:
            return decided_by_first(lambda: reselection.choose(scores, groups))

        return Cuts(schedule, dense, final, choose, done)

    def _fit(self, scores: Scores) -> Fit:
        return decided_by_first(lambda: self._chooser.fit(scores, self._measure, doubt=self._doubt()))

    def _look(self) -> Indicator:
        if self._criterion not in OF_WEIGHTS and not self.statistics.seen:
            raise ConfigError(
                describe(
                    f"the criterion {self._criterion} has no gradients to score by",
                    given="a loop without `pruner.observe()`",
                    allowed="`observe()` after backward, at least once before the network is cut",
                    fix=f"call it, or choose a criterion of weights by `prune.criterion`: {', '.join(OF_WEIGHTS)}",
                )
            )
        return self._indicator.after(self._chooser.keep(self.scores()), self._steps / self._per_epoch)

    @property
    def _prunable(self) -> tuple[Group, ...]:
        names = set(self._chooser.options)
        return tuple(group for group in self.groups if group.name in names)
