"""The closed loop: choose widths, time an untrained network with them, correct the prediction by the measurement, choose again."""

from collections.abc import Callable

from bonsai.profiles.located_yaml import Record
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.pruning.groups import Widths
from bonsai.stages.selection.bound import smallest_latency
from bonsai.stages.selection.latency import LatencyModel
from bonsai.stages.selection.problem import Values
from bonsai.stages.selection.search import select_widths
from bonsai.stages.selection.terms import Options


class Round(Record):
    """One network that the loop timed; latencies in milliseconds.

    Attributes:
        predicted_ms: Prediction of the latency model, corrected by the rounds before.
        measured_ms: Upper end of the measurement's interval.
    """

    widths: dict[str, int]
    predicted_ms: float
    measured_ms: float
    value: float


class Fit(Record):
    """Widths that fit the budget, and how they were found.

    Attributes:
        widths: Channels to keep per group.
        predicted_ms: Prediction of the calibrated latency model, without the loop's correction.
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
    measure: Callable[[Widths], float] | None,
    *,
    correction: float = 1.0,
) -> Fit:
    """Return the widths of most value whose measured latency is within the budget.

    Args:
        values: Value of every width of every group.
        options: Widths to choose from.
        latency: The calibrated latency model.
        limit_ms: The budget in milliseconds.
        config: Margin, tolerance and number of rounds.
        measure: Times an untrained network of given widths, in milliseconds; None if the device is not this machine.
        correction: Measured over predicted latency of an earlier engine.

    Raises:
        BudgetError: Even the narrowest network is above the budget.
    """
    aim = limit_ms * (1 - config.margin)
    if measure is None:
        chosen = select_widths(values, options, latency, aim)
        return Fit(widths=chosen.widths, predicted_ms=chosen.predicted_ms, aim_ms=aim, gap=chosen.gap)
    floor_ms, _ = smallest_latency(latency.terms(options))
    found: list[tuple[Round, Fit]] = []
    for _ in range(config.rounds):
        chosen = select_widths(values, options, latency, max(aim / correction, floor_ms))
        if any(chosen.widths == earlier.widths for earlier, _ in found):
            break
        latest = Round(widths=chosen.widths, predicted_ms=chosen.predicted_ms * correction, measured_ms=measure(chosen.widths), value=chosen.value)
        found.append((latest, Fit(widths=chosen.widths, predicted_ms=chosen.predicted_ms, aim_ms=aim, gap=chosen.gap)))
        if aim * (1 - config.tolerance) <= latest.measured_ms <= aim:
            break
        correction = latest.measured_ms / chosen.predicted_ms * (1.001 if latest.measured_ms > aim else 1.0)  # cuts off the network just measured
    within = [pair for pair in found if pair[0].measured_ms <= aim]
    _, fit = max(within, key=lambda pair: pair[0].value) if within else min(found, key=lambda pair: pair[0].measured_ms)
    return fit.model_copy(update={"rounds": tuple(latest for latest, _ in found)})
