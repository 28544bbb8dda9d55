"""Loss that a narrower group costs, measured: the training loss after BatchNorm has seen the cut network, without any training."""

import copy
from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np
import torch

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.source import PreparedImages
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network, load_scores
from bonsai.stages.pruning.criteria import Criterion
from bonsai.stages.pruning.groups import Group, Widths
from bonsai.stages.pruning.scores import best_channels
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.selection.terms import Options, Terms
from bonsai.stages.training.batches import Batches, load_split
from bonsai.stages.training.config import TrainConfig
from bonsai.stages.training.evaluation import reestimate_batchnorm

BATCHES, IMAGES = 4, 2048


class Sensitivity:
    """Losses of cut networks, on the first training images."""

    def __init__(self, segment: Checkpoint, dataset: Dataset, training: TrainConfig, groups: tuple[Group, ...], criterion: Criterion) -> None:
        self._network, self._shape, self._groups = load_network(segment), segment.image_shape, groups
        self._scores = load_scores(segment, criterion)
        self._batches = Batches(PreparedImages(dataset, "train"), training)
        self._images, self._labels = (tensor[:IMAGES] for tensor in load_split(dataset, "train"))
        self.dense = {group.name: group.width for group in groups}

    def loss(self, widths: Widths) -> float:
        """Return the loss of a network of these widths, the other groups whole."""
        network = copy.deepcopy(self._network).eval()
        cut(network, self._groups, best_channels(self._scores, {**self.dense, **widths}))
        reestimate_batchnorm(network, self._batches, start=0, count=BATCHES)
        total = 0.0
        with torch.no_grad():
            for images, labels in zip(torch.split(self._images, 256), torch.split(self._labels, 256), strict=True):
                total += float(torch.nn.functional.cross_entropy(network(images), labels, reduction="sum"))
        return total / len(self._images)

    def curves(self, options: Options) -> dict[str, dict[int, float]]:
        """Return the loss of every width of every group alone."""
        whole = self.loss({})
        return {name: {width: whole if width == self.dense[name] else self.loss({name: width}) for width in widths} for name, widths in options.items()}

    def at_half(self, options: Options) -> dict[tuple[str, str], float]:
        """Return the loss of every pair of groups at their middle options."""
        middle = {name: widths[(len(widths) - 1) // 2] for name, widths in options.items()}
        return {(a, b): self.loss({a: middle[a], b: middle[b]}) for a, b in combinations(options, 2)}


def values_alone(curves: Mapping[str, Mapping[int, float]], options: Options) -> Terms:
    """Return minus the rise of the loss, as if the rises added up; never less for a wider group."""
    return Terms(options, unary={name: -_rises(curves[name], widths) for name, widths in options.items()})


def values_in_pairs(curves: Mapping[str, Mapping[int, float]], pairs: Mapping[tuple[str, str], float], options: Options) -> Terms:
    """Return the same with what two groups cost together beyond both alone, scaled by their rises from one measured point."""
    rises = {name: _rises(curves[name], widths) for name, widths in options.items()}
    middle = {name: (len(widths) - 1) // 2 for name, widths in options.items()}
    whole = next(iter(curves.values()))[max(next(iter(curves.values())))]
    tables = {}
    for (a, b), loss in pairs.items():
        alone_a, alone_b = rises[a][middle[a]], rises[b][middle[b]]
        together = loss - whole - alone_a - alone_b
        tables[a, b] = -together * np.outer(rises[a] / max(alone_a, 1e-3), rises[b] / max(alone_b, 1e-3)).clip(-4, 4)
    return Terms(options, unary={name: -rise for name, rise in rises.items()}, pairs=tables)


def _rises(curve: Mapping[int, float], widths: Iterable[int]) -> np.ndarray:
    losses = np.array([curve[width] for width in widths])
    return np.maximum.accumulate((losses - losses[-1])[::-1])[::-1].clip(0)
