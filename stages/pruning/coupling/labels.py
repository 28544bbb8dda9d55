"""Labels of positions: positions with one label leave a network together.

A tensor's labels are a list of *factors*. A factor is an int64 tensor with the tensor's number of dimensions, of size 1 along each dimension that it says
nothing about: a weight (out, in, kh, kw) has one factor (out, 1, 1, 1) and one (1, in, 1, 1). A position leaves when its label in any factor does.
"""

from collections.abc import Iterable

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Factor = torch.Tensor
FIXED, OUTPUT = 0, 1
"""Labels of positions that must stay, and of those that the network gives out."""


class Labels:
    """Gives out labels, and knows which of them are one."""

    def __init__(self) -> None:
        self._next = OUTPUT + 1
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []
        self._roots: np.ndarray | None = None

    def fresh(self, shape: Iterable[int]) -> Factor:
        """Return a factor of new labels."""
        shape = tuple(shape)
        count = int(np.prod(shape))
        self._next += count
        self._roots = None
        return torch.arange(self._next - count, self._next).reshape(shape)

    def tie(self, one: Factor, other: Factor | int) -> None:
        """Let labels be one, position by position; shapes are broadcast."""
        first, second = torch.broadcast_tensors(one, torch.as_tensor(other))  # type: ignore[no-untyped-call]  # torch leaves it untyped
        pairs = np.unique(np.stack([first.reshape(-1).numpy(), second.reshape(-1).numpy()]), axis=1)
        self._ties.append((pairs[0], pairs[1]))
        self._roots = None

    def tie_along(self, factor: Factor, axis: int) -> Factor:
        """Let all positions along an axis have one label; return the factor without this axis."""
        first = factor.narrow(axis, 0, 1)
        self.tie(factor, first)
        return first

    def keep_whole(self, factor: Factor, axis: int) -> Factor | None:
        """Let an axis lose no positions: a factor that varies along others too gets one label along it, another one is fixed.

        Returns:
            What the factor says of the other axes, or None.
        """
        if factor.shape[axis] == 1:
            return factor
        if factor.numel() == factor.shape[axis]:
            self.tie(factor, FIXED)
            return None
        return self.tie_along(factor, axis)

    def roots(self) -> np.ndarray:
        """Return, by label, the number of its class; that of `FIXED` is `roots()[FIXED]`."""
        if self._roots is not None:
            return self._roots
        ones, others = (np.concatenate([pair[side] for pair in self._ties] or [np.zeros(0, dtype=int)]) for side in (0, 1))
        edges = coo_array((np.ones(len(ones), dtype=np.int8), (ones, others)), shape=(self._next, self._next))
        self._roots = np.asarray(connected_components(edges, directed=False)[1])
        return self._roots


def varying(factor: Factor) -> list[int]:
    """Return the axes that a factor says something about."""
    return [axis for axis, size in enumerate(factor.shape) if size > 1]
