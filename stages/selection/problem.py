"""The problem of selection, in numbers.

    maximise sum_g V_g(c_g)  subject to  latency(c) <= budget,  c_g among the group's options

HALP (arXiv 2110.10811) and MDP (arXiv 2504.02168) state it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bonsai.profiles.errors import BudgetError, describe
from bonsai.stages.selection.terms import Choice, Terms

Values = Mapping[str, Mapping[int, float]]
"""Value of every width of every group."""


@dataclass(frozen=True)
class Problem:
    """Value and latency of every option, and the budget.

    Attributes:
        terms: Milliseconds by option; it holds the groups and their widths.
        values: Value by option, of the same groups in the same order.
        limit_ms: The budget.
    """

    terms: Terms
    values: Terms
    limit_ms: float

    @classmethod
    def of(cls, values: Values, terms: Terms, limit_ms: float) -> "Problem":
        """Return the problem of values that add up over the groups."""
        options = {group: tuple(widths.tolist()) for group, widths in zip(terms.groups, terms.widths, strict=True)}
        unary = {group: np.array([values[group][width] for width in widths], dtype=float) for group, widths in options.items()}
        return cls(terms, Terms(options, unary=unary), limit_ms)

    @property
    def narrowest(self) -> Choice:
        """Every group at its narrowest."""
        return np.zeros(len(self.terms.groups), dtype=int)

    @property
    def widest(self) -> Choice:
        """Every group at its widest."""
        return np.array([len(widths) - 1 for widths in self.terms.widths])

    def value(self, choice: Choice) -> float:
        """Return the value that a choice keeps."""
        return self.values.total(choice)

    def fits(self, choice: Choice) -> bool:
        """Return whether a choice is within the budget."""
        return self.terms.total(choice) <= self.limit_ms


def require_reachable(smallest_ms: float, limit_ms: float, *, what: str, margin: float = 0.0) -> None:
    """Refuse a budget that no network meets.

    Args:
        smallest_ms: The smallest predicted latency.
        limit_ms: The budget.
        what: Whose budget it is, for the message.
        margin: Share of the budget, 0-1, that must stay free.

    Raises:
        BudgetError: The budget lies below it.
    """
    if smallest_ms > limit_ms * (1 - margin):
        raise BudgetError(
            describe(
                f"{what}: the latency budget cannot be met",
                given=f"{limit_ms:.4g} ms",
                allowed=f"at least {smallest_ms / (1 - margin):.4g} ms, with every group at its narrowest width",
                fix="raise profile.budget, lower prune.floor, or take another network: a wider one under budget.latency, a smaller one under budget.latency_ms",
            )
        )
