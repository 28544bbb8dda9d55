"""Criteria of gradients, computed from the trunk's own batches: after each backward, before the optimizer's step.

The scores of the batches are averaged with weights that decay over a fixed number of batches. A window of half an epoch would be only a handful of
batches on a small data set, and the ranking would be noise.
"""

from collections.abc import Collection, Mapping

import torch
from torch import nn

from bonsai.stages.networks.calling import outputs_of
from bonsai.stages.pruning.groups import Group, Kept
from bonsai.stages.pruning.layers import Layer, by_output, num_outputs, trained_weight
from bonsai.stages.pruning.scores import BATCH_CRITERIA, ScaledNorm, Scores, producers, scaled_norms
from bonsai.stages.pruning.soft import Masks
from bonsai.stages.tasks.task import Learning
from bonsai.stages.training.batches import Batches

WEIGHT = "weight"
NOISE = 1e-3
"""A sum of weights times gradients that is smaller than this share of the sum of their sizes is taken for rounding.

Measured in FP32: 4e-5 at most of layers before a normalisation, 6e-2 and more of layers without one."""
Products = list[tuple["_Rows", torch.Tensor]]


class _Rows:
    """A module's positions of one group, with the channel that each belongs to."""

    def __init__(self, module: Layer | ScaledNorm, rows: list[int], channels: list[int], width: int) -> None:
        self.module = module
        self.weight = trained_weight(module)
        self.bias: torch.Tensor | None = module.bias
        self._rows, self._channels = (torch.tensor(positions, device=module.weight.device) for positions in (rows, channels))
        self._straight = rows == channels == list(range(width)) and width == (num_outputs(module) if isinstance(module, Layer) else len(module.weight))

    def add(self, total: torch.Tensor, values: torch.Tensor) -> None:
        """Add one value per position of the module to the channels' totals."""
        if self._straight:
            total.add_(values)
        else:
            total.index_add_(0, self._channels, values[self._rows])


def _total(like: torch.Tensor, parts: list[tuple[_Rows, torch.Tensor]]) -> torch.Tensor:
    total = torch.zeros_like(like)
    for rows, values in parts:
        rows.add(total, values)
    return total


def _scale_and_shift(norm: _Rows) -> torch.Tensor:
    """Return gamma * dL/dgamma + beta * dL/dbeta per channel, without those that are not trained."""
    terms = (parameter * parameter.grad for parameter in (norm.weight, norm.bias) if parameter is not None and parameter.grad is not None)
    return sum(terms, torch.zeros_like(norm.weight))


def _of_weights(like: torch.Tensor, products: Products) -> torch.Tensor:
    """Return the size of each channel's sum of products; where these are no more than rounding, the sum of their sizes."""
    sums, sizes = _total(like, [(rows, product.sum(1)) for rows, product in products]).abs(), _sizes(like, products)
    return torch.where(sums.sum() > NOISE * sizes.sum(), sums, sizes)


def _sizes(like: torch.Tensor, products: Products) -> torch.Tensor:
    return _total(like, [(rows, product.abs().sum(1)) for rows, product in products])


class BatchStatistics:
    """Running scores of every criterion that needs batches, on the network's device.

    Args:
        network: Trained by the caller; its gradients are read.
        groups: Groups that are scored.
        window: Batches that the average remembers: the newest counts 1 / window.
        masks: Masks of channels that are zero for now; `bn_gradient` scores these by their masks.
        criteria: Those that are wanted. Each costs time at every batch.
    """

    def __init__(
        self,
        network: nn.Module,
        groups: tuple[Group, ...],
        window: int,
        masks: Masks | None = None,
        criteria: Collection[str] = BATCH_CRITERIA,
    ) -> None:
        self._network = network
        self._masks = masks
        self._decay = 1 - 1 / window
        self._layers = {g.name: [_Rows(*found, g.width) for found in producers(network, g)] for g in groups}
        self._norms = {g.name: [_Rows(*found, g.width) for found in scaled_norms(network, g)] for g in groups}
        self._device = next(network.parameters()).device
        self._sums = {name: {g.name: torch.zeros(g.width, device=self._device) for g in groups} for name in BATCH_CRITERIA if name in criteria}
        self._weight, self._seen = 0.0, 0

    @property
    def seen(self) -> int:
        """Number of batches so far."""
        return self._seen

    @torch.no_grad()
    def observe(self) -> None:
        """Add the gradients that the last backward left."""
        self._weight = self._weight * self._decay + 1
        self._seen += 1
        masked = self._masks.take_slopes() if self._masks else {}
        for sums in self._sums.values():
            for total in sums.values():
                total.mul_(self._decay)
        for group in self._layers:
            for name, value in self._of_batch(group, masked).items():
                self._sums[name][group].add_(value)

    def _of_batch(self, group: str, masked: Scores) -> Scores:
        """Return the scores of one batch by criterion."""
        trained = [rows for rows in self._norms[group] if rows.weight.grad is not None]
        products: Products = []
        if "snip" in self._sums or not trained:
            products = [(rows, by_output(rows.module, rows.weight * rows.weight.grad)) for rows in self._layers[group] if rows.weight.grad is not None]
        found: Scores = {}
        if "bn_gradient" in self._sums:
            like = self._sums["bn_gradient"][group]
            own = _total(like, [(rows, _scale_and_shift(rows)) for rows in trained]).abs() if trained else _of_weights(like, products)
            found["bn_gradient"] = own + masked.get(group, 0)
        if "snip" in self._sums:
            found["snip"] = _sizes(self._sums["snip"][group], products)
        return found

    def observe_untrained(self, batches: Batches, learning: Learning, *, batches_seen: int) -> None:
        """Add the loss's gradients of the first batches without training on them; BatchNorm's statistics stay as they are."""
        kept = {name: value.clone() for name, value in self._network.named_buffers()}
        for step in range(batches_seen):
            images, targets = batches.batch(step)
            self._network.zero_grad(set_to_none=True)
            learning.loss(outputs_of(self._network, images), targets).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self.observe()
        self._network.zero_grad(set_to_none=True)
        for name, value in self._network.named_buffers():
            value.copy_(kept[name])

    def scores(self) -> dict[str, Scores]:
        """Return the averages by criterion and group; zeros before the first batch."""
        return {name: {group: total.cpu() / max(self._weight, 1e-12) for group, total in sums.items()} for name, sums in self._sums.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """Return what `restore` needs."""
        tensors = {f"{name}/{group}": total.clone() for name, sums in self._sums.items() for group, total in sums.items()}
        tensors = {name: value.cpu() for name, value in tensors.items()}
        return {**tensors, WEIGHT: torch.tensor([self._weight, self._seen], dtype=torch.float64)}

    @staticmethod
    def cut(tensors: Mapping[str, torch.Tensor], kept: Kept) -> dict[str, torch.Tensor]:
        """Return the state of the channels that a cut has left; of a group without any there is none."""
        left = {key: value for key, value in tensors.items() if kept.get(key.partition("/")[2]) != ()}
        return {key: value[list(kept[group])] if (group := key.partition("/")[2]) in kept else value for key, value in left.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from the state of an earlier segment."""
        self._weight, self._seen = float(tensors[WEIGHT][0]), int(tensors[WEIGHT][1])
        for name, sums in self._sums.items():
            for group in sums:
                sums[group] = tensors[f"{name}/{group}"].to(self._device, copy=True)
