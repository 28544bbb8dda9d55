"""The closed loop: choose widths, time an untrained network with them, fit the latency model to what was timed, choose again."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bonsai.profiles.located_yaml import Record
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.selection.bound import smallest_latency
from bonsai.stages.selection.latency import LatencyModel
from bonsai.stages.selection.problem import Values
from bonsai.stages.selection.search import Selection, select_widths
from bonsai.stages.selection.terms import Options

TIGHTER = 0.998
"""The limit is multiplied by this as often as selection returns a network that was above the aim."""
TRIES = 25
"""Most selections for one round."""


class Measured(NamedTuple):
    """A network that was timed.

    Attributes:
        ms: Its latency in milliseconds.
        upper_ms: What the upper end of a verdict's interval is not likely to exceed.
    """

    ms: float
    upper_ms: float


class Round(Record):
    """One network that the loop timed; latencies in milliseconds.

    Attributes:
        predicted_ms: Prediction of the latency model, fitted to the rounds before.
        measured_ms: What was measured.
        upper_ms: What the upper end of a verdict's interval is not likely to exceed; the loop judges by it.
    """

    widths: dict[str, int]
    predicted_ms: float
    measured_ms: float
    upper_ms: float
    value: float


class Fit(Record):
    """Widths that fit the budget, and how they were found.

    Attributes:
        widths: Channels to keep per group.
        predicted_ms: Prediction of the latency model as the loop found it.
        aim_ms: The budget less the margin.
        gap: Optimality gap, (bound - value) / bound.
        rounds: The networks that were timed; empty if nothing can be timed.
    """

    widths: dict[str, int]
    predicted_ms: float
    aim_ms: float
    gap: float
    rounds: tuple[Round, ...] = ()


def fit_widths(
    values: Values,
    options: Options,
    latency: LatencyModel,
    limit_ms: float,
    config: PruneConfig,
    measure: Callable[[Widths], Measured] | None,
    *,
    correction: float = 1.0,
    doubt: float = 1.0,
) -> Fit:
    """Return the widths of most value whose measured latency is within the budget.

    Args:
        values: Value of every width of every group.
        options: Widths to choose from.
        latency: The latency model. It learns from every round.
        limit_ms: The budget in milliseconds.
        config: Margin, tolerance and number of rounds.
        measure: Times an untrained network of given widths; None if the device is not this machine.
        correction: Measured over predicted latency of an earlier engine.
        doubt: Upper end over latency of a network that nobody has timed yet.

    Raises:
        BudgetError: Even the narrowest network is above the budget.
    """
    aim = limit_ms * (1 - config.margin)
    if measure is None:
        chosen = select_widths(values, options, latency, aim)
        return Fit(widths=chosen.widths, predicted_ms=chosen.predicted_ms, aim_ms=aim, gap=chosen.gap)
    middle = aim * (1 - config.tolerance / 2)  # of the latencies that end the loop
    found: list[tuple[Round, Selection]] = []
    learnt = latency
    for _ in range(config.rounds):
        chosen = _choose(values, options, learnt, (middle / correction / doubt, aim / correction / doubt), aim, [earlier for earlier, _ in found])
        if any(chosen.widths == earlier.widths for earlier, _ in found):
            break
        ms, upper_ms = measure(chosen.widths)
        predicted_ms = chosen.predicted_ms * correction
        latest = Round(widths=chosen.widths, predicted_ms=predicted_ms, measured_ms=ms, upper_ms=upper_ms, value=chosen.value)
        found.append((latest, chosen))
        if aim * (1 - config.tolerance) <= upper_ms <= aim:
            break
        doubt = upper_ms / ms
        learnt = latency.learn([(one.widths, one.measured_ms) for one, _ in found])
        correction = _left_over(learnt, [one for one, _ in found])
    within = [pair for pair in found if pair[0].upper_ms <= aim]
    best, chosen = max(within, key=lambda pair: pair[0].value) if within else min(found, key=lambda pair: pair[0].measured_ms)
    return Fit(widths=best.widths, predicted_ms=latency(best.widths), aim_ms=aim, gap=chosen.gap, rounds=tuple(latest for latest, _ in found))


def _choose(values: Values, options: Options, latency: LatencyModel, limits_ms: tuple[float, float], aim_ms: float, rounds: Sequence[Round]) -> Selection:
    """Return the widths of most value within a limit.

    Where a round has timed those already, the limit moves: up to the largest one if they were within the aim, else down.

    Args:
        values: As for `fit_widths`.
        options: As for `fit_widths`.
        latency: The latency model.
        limits_ms: The limit and the largest one, in predicted milliseconds.
        aim_ms: The largest upper end that may end the loop.
        rounds: All rounds so far.
    """
    floor_ms, _ = smallest_latency(latency.terms(options))
    known = {tuple(sorted(earlier.widths.items())): earlier for earlier in rounds}
    limit_ms, largest_ms = limits_ms
    for _ in range(TRIES):
        chosen = select_widths(values, options, latency, max(limit_ms, floor_ms))
        earlier = known.get(tuple(sorted(chosen.widths.items())))
        if earlier is None or (earlier.upper_ms <= aim_ms and limit_ms == largest_ms):
            break
        limit_ms = largest_ms if earlier.upper_ms <= aim_ms else limit_ms * TIGHTER
    return chosen


def _left_over(latency: LatencyModel, rounds: Sequence[Round]) -> float:
    """Return measured over predicted latency, after the model has learnt: the mean of the last two rounds, for one alone may be a single network's."""
    return math.exp(sum(math.log(one.measured_ms / latency(one.widths)) for one in rounds[-2:]) / len(rounds[-2:]))
