"""The closed loop: choose widths, time an untrained network of them, correct the budget, choose again."""

from collections.abc import Callable

from profiles.source import Record
from stages.pruning.config import PruneConfig
from stages.pruning.groups import Widths
from stages.pruning.selection import LatencyOf, Options, Values, select_widths, total_value


class Round(Record):
    """One network of the loop; latencies in milliseconds."""

    widths: dict[str, int]
    predicted_ms: float
    measured_ms: float
    value: float


class Fit(Record):
    """Widths that fit the budget, and how they were found.

    Attributes:
        widths: Channels to keep per group.
        predicted_ms: By the calibrated latency table.
        aim_ms: The budget less the margin.
        rounds: The networks that were timed; empty where nothing can be timed.
    """

    widths: dict[str, int]
    predicted_ms: float
    aim_ms: float
    rounds: tuple[Round, ...] = ()


def fit_widths(values: Values, options: Options, latency: LatencyOf, limit_ms: float, config: PruneConfig, measure: Callable[[Widths], float] | None) -> Fit:
    """Return the widths of most value whose measured latency is within the budget.

    Args:
        values: Value of every width of every group.
        options: Widths to choose from.
        latency: The calibrated prediction.
        limit_ms: The budget in milliseconds.
        config: Margin, tolerance and number of rounds.
        measure: Times an untrained network of given widths, in milliseconds; None where the device is not here.

    Raises:
        BudgetError: Even the narrowest network is above the budget.
    """
    aim = limit_ms * (1 - config.margin)
    if measure is None:
        widths = select_widths(values, options, latency, aim)
        return Fit(widths=widths, predicted_ms=latency(widths), aim_ms=aim)
    floor_ms = latency({group: min(choices) for group, choices in options.items()})
    rounds: list[Round] = []
    budget = aim
    for _ in range(config.rounds):
        widths = select_widths(values, options, latency, max(budget, floor_ms))
        if any(widths == earlier.widths for earlier in rounds):
            break
        latest = Round(widths=widths, predicted_ms=latency(widths), measured_ms=measure(widths), value=total_value(values, widths))
        rounds.append(latest)
        if aim * (1 - config.tolerance) <= latest.measured_ms <= aim:
            break
        budget *= aim / latest.measured_ms * 0.998
        if latest.measured_ms > aim:
            budget = min(budget, latest.predicted_ms * 0.999)  # cuts off the network just measured
    within = [r for r in rounds if r.measured_ms <= aim]
    chosen = max(within, key=lambda r: r.value) if within else min(rounds, key=lambda r: r.measured_ms)
    return Fit(widths=chosen.widths, predicted_ms=chosen.predicted_ms, aim_ms=aim, rounds=tuple(rounds))
