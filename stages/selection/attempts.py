"""Decides whether widths are chosen again after an engine is built or a network is cut, and which branch is kept."""

from bonsai.stages.selection.loop import Fit

ATTEMPTS = 2
"""Most branches that are trained for one target. The second is trained if the finished engine misses the budget or wastes too much of it."""
WASTE = 0.05
"""Fraction of what the closed loop aims at that the finished engine may leave unused. Above it, the widths are chosen again."""


def uses_budget(used: float, *, margin: float, tolerance: float) -> bool:
    """Return whether a finished engine is within its budget and wastes little of it.

    Args:
        used: The figure of the engine that is largest over its limit: of latency, p99, memory, size and energy.
        margin: Fraction of the budget, 0-1, that was to stay free.
        tolerance: Fraction of the rest that the closed loop was free to leave unused too.
    """
    return (1 - WASTE) * (1 - tolerance) * (1 - margin) <= used <= 1


def rank(passed: bool, used: float) -> tuple[bool, bool, float]:
    """Return a sort key: the branch with the smallest is kept.

    Args:
        passed: Whether all gates are met on the validation images.
        used: As for `uses_budget`. Up to 1, closer to 1 is better (more of the budget is used); above 1, smaller is better.
    """
    return not passed, used > 1, used if used > 1 else -used


def tighter(limit_ms: float, fit: Fit, *, measured_ms: float, predicted_ms: float) -> float:
    """Return a smaller budget, in predicted milliseconds, for cutting again. The network was measured above `fit.aim_ms`.

    Args:
        limit_ms: Budget of the removal before.
        fit: The first choice.
        measured_ms: Latency of the network that the removal left.
        predicted_ms: Prediction for the same network. The new budget is below it, so that other widths are chosen.
    """
    return min(limit_ms * fit.aim_ms / measured_ms * 0.998, predicted_ms * 0.999)
