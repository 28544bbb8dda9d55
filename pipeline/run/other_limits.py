"""Keeps a network within the limits besides the target's latency: size of the file, latency at every point. It builds and times untrained networks."""

import statistics
from collections.abc import Callable
from typing import NamedTuple, Protocol

from bonsai.pipeline.run.device_timing import DeviceTimer
from bonsai.pipeline.run.targets import ReadyTarget
from bonsai.profiles.errors import BudgetError, describe
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.selection.loop import Fit
from bonsai.stages.training.progress import say

ROUNDS = 3
"""Most times that widths are chosen again because of another limit."""
TIGHTER = 0.98
"""Neither falls as much as the target's latency: some weights, and the time that every inference takes, stay."""


class Found(NamedTuple):
    """What an untrained network of some widths needs of what is limited.

    Attributes:
        figure: The smallest limit that it would meet, in megabytes or milliseconds.
        most: The limit.
    """

    figure: float
    most: float

    @property
    def strain(self) -> float:
        """The figure over its limit."""
        return self.figure / self.most


class OtherLimit(Protocol):
    """A limit that widths are not chosen by, and that narrower networks meet.

    Attributes:
        unit: Of its figures.
        what: What it limits.
        whose: Name of the profile, and of the point.
        key: The key that sets it.
    """

    unit: str
    what: str
    whose: str
    key: str

    def find(self, widths: Widths) -> Found:
        """Return what a network of these widths needs."""
        ...

    def find_least(self, narrowest: Widths) -> Found:
        """Return what the narrowest network needs; called before `find`."""
        ...

    def asked(self, most: float) -> str:
        """Return the limit as the profile sets it, given its figure."""
        ...


class SizeLimit:
    """The budget of the engine's file, in megabytes."""

    unit, what, key = "MB", "the size budget", "budget.size_mb"

    def __init__(self, target: ReadyTarget, most: float) -> None:
        self._target, self._most = target, most
        self.whose = target.profile.name

    def find(self, widths: Widths) -> Found:
        """Return the size of an untrained engine."""
        return Found(self._target.engine_mb(widths), self._most)

    find_least = find

    def asked(self, most: float) -> str:
        """Return the key and its value."""
        return f"{self.key} {most:g}"


class PointLimit:
    """The latency budget at a point, in milliseconds. The same margin stays free of it as of the target's."""

    unit, what, key = "ms", "the latency budget", "the point's budget"

    def __init__(self, timer: DeviceTimer, margin: float) -> None:
        self._timer, self._margin = timer, margin
        self.whose = timer.at.name

    def _found(self, ms: float) -> Found:
        return Found(ms / (1 - self._margin), self._timer.at.budget.limit_ms(self._timer.dense_ms))

    def find(self, widths: Widths) -> Found:
        """Return what the upper end of a verdict's interval is not likely to exceed."""
        timed = self._timer.time_at_pace(widths, self._timer.at.budget.limit_ms(self._timer.dense_ms))
        return self._found(statistics.mean(one.ms for one in timed) * self._timer.doubt_of(timed))

    def find_least(self, narrowest: Widths) -> Found:
        """Return the latency by few runs, which time the dense engine at this point for the first time too; by more if that is too much."""
        (quick,) = self._timer.survey([narrowest])
        found = self._found(quick.ms)
        return found if found.strain <= 1 else self.find(narrowest)

    def asked(self, most: float) -> str:
        """Return the point's budget, and its latency in milliseconds."""
        return f"{self._timer.at.budget}; its latency is {most:.4g} ms"


def other_limits(target: ReadyTarget) -> list[OtherLimit]:
    """Return the limits on the size and at the points that the profile sets."""
    size_mb, margin = target.profile.budget.size_mb, target.chooser.config.margin
    sizes = [SizeLimit(target, size_mb)] if size_mb is not None else []
    return [*sizes, *(PointLimit(timer, margin) for timer in target.points)]


def require_other_limits(target: ReadyTarget) -> None:
    """Check that the narrowest network is within every limit.

    Raises:
        BudgetError: It is above one.
    """
    narrowest = {group: min(widths) for group, widths in target.options.items()}
    for limit in other_limits(target):
        least = limit.find_least(narrowest)
        if least.strain > 1:
            raise BudgetError(
                describe(
                    f"profile {limit.whose}: {limit.what} cannot be met",
                    given=limit.asked(least.most),
                    allowed=f"at least {least.figure:.4g} {limit.unit}, the {target.profile.target.precision} engine with every group at its narrowest width",
                    fix=f"raise {limit.key}, lower prune.floor, or take another network",
                )
            )


def fit_within(target: ReadyTarget, fit: Callable[[float], Fit], limit_ms: float) -> Fit:
    """Return widths that fit a latency, and narrower ones while an untrained network of them is above another limit.

    Args:
        target: The target.
        fit: Chooses widths within milliseconds.
        limit_ms: Those to begin with.
    """
    found = fit(limit_ms)
    for chosen in range(ROUNDS + 1):
        strain, told = most_strained(target, found.widths)
        if strain <= 1:
            break
        if chosen == ROUNDS:
            say(f"warning: {told}; after {ROUNDS} further choices of widths, this one is trained all the same")
            break
        say(f"{told}: narrower ones are chosen")
        limit_ms *= TIGHTER / strain
        found = fit(limit_ms)
    return found


def most_strained(target: ReadyTarget, widths: Widths) -> tuple[float, str]:
    """Return the largest figure over its limit that an untrained network has, and a sentence on it; 0 and an empty text where nothing else is limited."""
    found = [(one.find(widths), one) for one in other_limits(target)]
    if not found:
        return 0.0, ""
    over, limit = max(found, key=lambda pair: pair[0].strain)
    return over.strain, f"{limit.whose}: an untrained engine of these widths needs {over.figure:.3f} {limit.unit}, {limit.key} {over.most:.4g} {limit.unit}"
