"""Keeps the engine's file within its budget: its size is known from an untrained engine, before anything is trained."""

from collections.abc import Callable

from bonsai.pipeline.run.targets import ReadyTarget
from bonsai.profiles.errors import BudgetError, describe
from bonsai.stages.selection.loop import Fit
from bonsai.stages.training.progress import say

ROUNDS = 3
"""Most times that widths are chosen again because of the size."""
TIGHTER = 0.98
"""The size does not fall as much as the latency: weights that are left, and the file's own words, stay."""


def require_size(target: ReadyTarget) -> None:
    """Check that the engine of the narrowest network is within the size budget.

    Raises:
        BudgetError: It is larger.
    """
    most = target.profile.budget.size_mb
    if most is None:
        return
    least = target.engine_mb({group: min(widths) for group, widths in target.options.items()})
    if least > most:
        raise BudgetError(
            describe(
                f"profile {target.profile.name}: the size budget cannot be met",
                given=f"budget.size_mb {most:g}",
                allowed=f"at least {least:.4g} MB, the {target.profile.target.precision} engine with every group at its narrowest width",
                fix="raise budget.size_mb, lower prune.floor, or take another network",
            )
        )


def fit_with_size(target: ReadyTarget, fit: Callable[[float], Fit], limit_ms: float) -> Fit:
    """Return widths that fit a latency, and narrower ones while their untrained engine is larger than the size budget.

    Args:
        target: The target.
        fit: Chooses widths within milliseconds.
        limit_ms: Those to begin with.
    """
    most = target.profile.budget.size_mb
    found = fit(limit_ms)
    for _ in range(ROUNDS if most is not None else 0):
        size = target.engine_mb(found.widths)
        if most is None or size <= most:
            break
        limit_ms *= most / size * TIGHTER
        say(f"{target.profile.name}: an untrained engine of these widths has {size:.3f} MB, budget {most:g} MB: narrower ones are chosen")
        found = fit(limit_ms)
    return found
