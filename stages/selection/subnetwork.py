"""The sub-network that a budget would keep now, channel by channel: what EPI compares between two checks.

All channels are ranked by score per price, and the best are kept that the budget pays for. Nothing is rounded to the device's step, and no value
stands between the scores and the choice, so that whatever training changes in the scores can be seen. The widths that are cut in the end are
chosen otherwise (`stages/selection/search.py`).
"""

import numpy as np
import torch

from stages.pruning.groups import Kept
from stages.pruning.scores import Scores
from stages.selection.latency import LatencyModel
from stages.selection.terms import Array, Options

FANOUT = 64
"""Thresholds that are tried at a time."""


class Ranking:
    """Chooses channels by score per price within a latency budget.

    A channel's price is what its group saves on average between its widest and its narrowest option, the other groups as they are in the dense
    network. Latency between two options is interpolated: it is a price here, and no millisecond that a device would show.

    Args:
        latency: The latency model.
        options: Widths by group; no group keeps fewer channels than the least of them, nor more than the most.
        limit_ms: The budget.
    """

    def __init__(self, latency: LatencyModel, options: Options, limit_ms: float) -> None:
        self._terms, self._limit_ms = latency.terms(options), limit_ms
        widest = np.array([len(widths) - 1 for widths in self._terms.widths])
        saved = [self._terms.along(widest, group) for group in range(len(widest))]
        prices = np.array([(along[-1] - along[0]) / max(int(widths[-1] - widths[0]), 1) for along, widths in zip(saved, self._terms.widths, strict=True)])
        self._prices = np.maximum(prices, 1e-3 * max(prices.max(), 1e-12))

    def keep(self, scores: Scores) -> Kept:
        """Return the channels that the budget would keep, ascending.

        Args:
            scores: (width,) by group, none negative; larger for a channel that matters more.
        """
        ascending = [np.sort(scores[group].detach().cpu().double().numpy()) / price for group, price in zip(self._terms.groups, self._prices, strict=True)]
        thresholds = np.unique(np.concatenate(ascending))
        low, high = 0, len(thresholds) - 1  # the lowest threshold that fits lies between
        while high - low > 0:
            tried = np.unique(np.linspace(low, high, FANOUT).astype(int))
            fits = self._terms.between(self._widths(ascending, thresholds[tried])) <= self._limit_ms
            if not fits.any():
                low = high
                break
            first = int(fits.argmax())
            low, high = (int(tried[first - 1]) + 1 if first else low), int(tried[first])
        chosen = self._widths(ascending, thresholds[[low]])[0].astype(int)
        return {group: _best(scores[group], width) for group, width in zip(self._terms.groups, chosen, strict=True)}

    def _widths(self, ascending: list[Array], thresholds: Array) -> Array:
        """Return the channels that each group keeps at each threshold, (thresholds, groups)."""
        columns = [
            np.clip(len(values) - np.searchsorted(values, thresholds), widths[0], widths[-1])
            for values, widths in zip(ascending, self._terms.widths, strict=True)
        ]
        return np.stack(columns, 1).astype(float)


def _best(scores: torch.Tensor, width: int) -> tuple[int, ...]:
    return tuple(sorted(np.argsort(-scores.detach().cpu().numpy(), kind="stable")[:width].tolist()))
