"""Decides when to prune: keeps the sub-networks of all checks and asks the policy."""

from dataclasses import dataclass, field, replace

from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.epi import EpiConfig, Trigger, jaccard, over_window, similarity, threshold
from bonsai.stages.pruning.groups import Kept
from bonsai.stages.pruning.policy import PolicyConfig, fires


@dataclass(frozen=True)
class Indicator:
    """The sub-networks of all checks so far. It is immutable: `after` returns a new one.

    Attributes:
        policy: When to prune.
        epi: Settings of the policy ``epi``.
        criterion: Criterion that ranks channels; EPI's threshold depends on it.
        seen: Channels that the budget would have kept at each check.
        epochs: Epochs trained at each check.
    """

    policy: PolicyConfig
    epi: EpiConfig
    criterion: Criterion
    seen: tuple[Kept, ...] = field(default=(), repr=False)
    epochs: tuple[float, ...] = ()

    @property
    def tau(self) -> float:
        """Threshold of EPI."""
        return threshold(self.epi, self.criterion)

    @property
    def curve(self) -> tuple[float | None, ...]:
        """EPI at each check; None if there were too few earlier sub-networks."""
        return tuple(over_window(similarity, self.seen, self.epi.window))

    @property
    def sentence(self) -> str:
        """The last check in a few words; only for the policy ``epi``."""
        value, left = self.curve[-1], self.epi.window + 1 - len(self.seen)
        shown = f"EPI {value:.3f} (fires at {self.tau:g})" if value is not None else f"EPI needs {left} more checks to have a value"
        return f"check {len(self.seen)}  {shown}"

    def after(self, kept: Kept, epoch: float) -> "Indicator":
        """Return the indicator one check later.

        Args:
            kept: Channels that the budget would keep now.
            epoch: Epochs trained, with fractions.
        """
        return replace(self, seen=(*self.seen, kept), epochs=(*self.epochs, epoch))

    def trigger(self, *, latest: bool) -> Trigger | None:
        """Return a trigger if the policy fires at the last check, or None.

        Args:
            latest: EPI gets no later check, so it fires even if the widths have not settled.
        """
        fired = fires(self.policy, self.epi, tau=self.tau, curve=self.curve, epoch=self.epochs[-1])
        return self.leave(self.epochs[-1], stable=fired) if fired or (latest and self.policy.name == "epi") else None

    def leave(self, epoch: float, *, stable: bool) -> Trigger:
        """Return a trigger for now, whatever the policy says."""
        return Trigger(
            policy=self.policy.name,
            check=len(self.seen),
            epoch=epoch,
            stable=stable,
            tau=self.tau,
            epochs=self.epochs,
            curve=self.curve,
            overlap=tuple(over_window(jaccard, self.seen, self.epi.window)),
        )
