"""The sub-network that a budget would keep now, channel by channel: what EPI compares between two checks.

All channels are ranked by score per price, and the best are kept that the budget pays for. Nothing is rounded to the device's step, and no value
stands between the scores and the choice, so that whatever training changes in the scores can be seen. The widths that are cut in the end are
chosen otherwise (`stages/selection/search.py`).
"""

import numpy as np
import torch

from bonsai.stages.pruning.groups import Kept, Widths
from bonsai.stages.pruning.scores import Scores
from bonsai.stages.selection.latency import LatencyModel
from bonsai.stages.selection.terms import Array, Options

FANOUT = 64
"""Number of candidate channel counts that are tried at a time."""


class Ranking:
    """Chooses channels by score per price within a latency budget.

    A channel's price is what its group saves on average between its widest and its narrowest option, the other groups as they are in the dense
    network. Latency between two options is interpolated, and below the least goes on as a line: it is a price here, no millisecond of a device.

    Args:
        latency: The latency model.
        options: Widths by group, whose latency is known; no group keeps more channels than the most of them.
        limit_ms: The budget.
        floors: Fewest channels that each group keeps; a device's step is no floor here.
    """

    def __init__(self, latency: LatencyModel, options: Options, limit_ms: float, floors: Widths) -> None:
        self._terms, self._limit_ms = latency.terms(options), limit_ms
        self._bounds = [(widths[0] if len(widths) == 1 else min(floors[group], widths[-1]), widths[-1]) for group, widths in options.items()]
        widest = np.array([len(widths) - 1 for widths in self._terms.widths])
        saved = [self._terms.along(widest, group) for group in range(len(widest))]
        prices = np.array([(along[-1] - along[0]) / max(int(widths[-1] - widths[0]), 1) for along, widths in zip(saved, self._terms.widths, strict=True)])
        self._prices = np.maximum(prices, 1e-3 * max(prices.max(), 1e-12))

    def keep(self, scores: Scores) -> Kept:
        """Return the channels that the budget would keep, ascending.

        Args:
            scores: (width,) by group, none negative; larger for a channel that matters more.
        """
        worth = [scores[group].detach().cpu().double().numpy() / price for group, price in zip(self._terms.groups, self._prices, strict=True)]
        order = np.argsort(-np.concatenate(worth), kind="stable")
        rank = np.empty(len(order), dtype=int)
        rank[order] = np.arange(len(order))
        ranks = [np.sort(part) for part in np.split(rank, np.cumsum([len(values) for values in worth])[:-1])]
        low, high = 0, len(order)  # as many of the best channels as fit lie between
        while low < high:
            tried = np.unique(np.linspace(low + 1, high, FANOUT).astype(int))
            fits = self._terms.between(self._widths(ranks, tried)) <= self._limit_ms
            most = int(fits.sum() if fits.all() else fits.argmin())
            low, high = int(tried[most - 1]) if most else low, int(tried[most]) - 1 if most < len(tried) else int(tried[-1])
        chosen = self._widths(ranks, np.array([low]))[0].astype(int)
        return {group: _best(scores[group], width) for group, width in zip(self._terms.groups, chosen, strict=True)}

    def _widths(self, ranks: list[Array], counts: Array) -> Array:
        """Return the channels that each group keeps where so many of all channels are kept, (counts, groups)."""
        columns = [np.clip(np.searchsorted(places, counts), least, most) for places, (least, most) in zip(ranks, self._bounds, strict=True)]
        return np.stack(columns, 1).astype(float)


def _best(scores: torch.Tensor, width: int) -> tuple[int, ...]:
    return tuple(sorted(np.argsort(-scores.detach().cpu().numpy(), kind="stable")[:width].tolist()))
