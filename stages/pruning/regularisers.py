r"""Sparsity regularisers of the trunk: they press whole channels towards zero, so that cutting them costs less.

Each adds the gradient of its penalty R to the gradients of the loss, after backward and before the optimizer's step. So
criteria of gradients can read the gradients of the loss alone first. W_c are all parameters that are removed with channel c:
the rows and biases of the layers that produce it, gamma and beta of its normalisation layers, and the columns of the
layers that consume it. This is the group of DepGraph (Fang et al., arXiv 2301.12900), whose norm covers all of these parameters;
Torch-Pruning's code omits biases and beta by default. P_c is the number of parameters in W_c.

| name | R | source |
|---|---|---|
| group_lasso | strength * sum over c of sqrt(P_c) * \|\|W_c\|\|_2 | Yuan and Lin 2006; Wen et al., arXiv 1608.03665 |
| bn_l1 | strength * sum over c of \|gamma_c\| | Liu et al., arXiv 1708.06519 (network slimming) |
| growing | sum over c of strength_c / 2 * \|\|W_c\|\|_2^2 | Wang et al., arXiv 2012.09243 (GReg) |

A layer between two groups belongs to both, by its rows and by its columns; one whose inputs and outputs are the same
group counts once by each. A frozen parameter belongs to none.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.pruning.config import CEILING, RegulariserConfig
from bonsai.stages.pruning.groups import Group
from bonsai.stages.pruning.scores import scaled_norms


class Regulariser(Protocol):
    """Adds a penalty to a training, one step after another."""

    def add(self) -> None:
        """Add the penalty's gradient to the parameters' gradients; a parameter without one is passed over."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Return what `restore` needs."""
        ...

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from the state of an earlier segment."""
        ...


def make_regulariser(config: RegulariserConfig, network: nn.Module, groups: tuple[Group, ...]) -> Regulariser | None:
    """Return the configured regulariser of the channels in `groups`, or None.

    Args:
        config: Which penalty.
        network: Trained by the caller, on the device that it stays on.
        groups: Groups from `find_groups`.

    Raises:
        ConfigError: ``bn_l1`` of a network none of whose groups has a normalisation with a scale; of several, the groups without stay as they are.
    """
    if config.name == "group_lasso":
        return GroupLasso(Coupling(network, groups), config.strength)
    if config.name == "bn_l1":
        return NetworkSlimming(network, groups, config.strength)
    if config.name == "growing":
        assert config.growth and config.every  # the config sees to it
        return GrowingL2(Coupling(network, groups), [group.width for group in groups], config.strength, config.growth, config.every)
    return None


class _Part(NamedTuple):
    """One parameter, along one of its dimensions.

    Attributes:
        parameter: Seen as `shape`.
        shape: (convolution groups, rows of each, columns of each, size of the kernel).
        along: Shape of the positions within `shape`: one per row or one per column of every convolution group.
        channels: (positions,) the channel of each, counted over all groups; one past the last for those of no group.
    """

    parameter: torch.Tensor
    shape: tuple[int, int, int, int]
    along: tuple[int, int, int, int]
    channels: torch.Tensor


class Coupling:
    """The coupled parameters W_c of all channels c of all groups, which are counted in one row."""

    def __init__(self, network: nn.Module, groups: tuple[Group, ...]) -> None:
        width = sum(group.width for group in groups)
        parts: dict[tuple[int, bool], _Part] = {}
        first = 0
        for group in groups:
            written = {member.module for member in group.members if member.side == "out"}
            for member in group.members:
                if member.side == "in" and member.module in written and getattr(network.get_submodule(member.module), "groups", 1) > 1:
                    continue  # groups of a convolution that leave whole: its rows are all of their weights
                for parameter, shape, rows in _seen(network.get_submodule(member.module), member.side):
                    along = (shape[0], shape[1], 1, 1) if rows else (shape[0], 1, shape[2], 1)
                    nowhere = torch.full((along[1] * along[2] * shape[0],), width, device=parameter.device)
                    part = parts.setdefault((id(parameter), rows), _Part(parameter, shape, along, nowhere))
                    part.channels[list(member.indices)] = first + torch.tensor(member.channels, device=parameter.device)
            first += group.width
        self._parts = tuple(parts.values())
        device = next(network.parameters()).device
        self._zeros = torch.zeros(width + 1, device=device)
        sizes = self._zeros.clone()
        for part in self._parts:
            sizes.index_add_(0, part.channels, torch.full(part.channels.shape, part.parameter.numel() / len(part.channels), device=device))
        self.sizes = sizes[:-1]

    @torch.no_grad()
    def norms(self) -> torch.Tensor:
        """Return ||W_c||_2 of every channel."""
        squares = self._zeros.clone()
        for part in self._parts:
            squares.index_add_(0, part.channels, part.parameter.view(part.shape).square().sum_to_size(part.along).flatten())
        return squares[:-1].sqrt()

    @torch.no_grad()
    def shrink(self, factors: torch.Tensor) -> None:
        """Add factor_c * w to the gradient of every w in W_c."""
        padded = nn.functional.pad(factors, (0, 1))
        for part in self._parts:
            if part.parameter.grad is not None:
                part.parameter.grad.view(part.shape).addcmul_(part.parameter.view(part.shape), padded[part.channels].view(part.along))


def _seen(module: nn.Module, side: str) -> list[tuple[torch.Tensor, tuple[int, int, int, int], bool]]:
    """Return a module's trainable parameters on one side: each with the shape it is seen as, and whether positions are rows.

    A convolution's weight is (out, in / groups, ...), a transposed one's (in, out / groups, ...).
    """
    found: list[tuple[torch.Tensor, tuple[int, int, int, int], bool]] = []
    if isinstance(module, _ConvNd | nn.Linear):
        blocks = module.groups if isinstance(module, _ConvNd) else 1
        weight = module.weight
        shape = (blocks, weight.shape[0] // blocks, weight.shape[1], weight[0, 0].numel())
        found.append((weight, shape, (side == "out") != isinstance(module, _ConvTransposeNd)))
    if side == "out" and isinstance(module, _ConvNd | nn.Linear | _NormBase | nn.GroupNorm | nn.LayerNorm):
        vectors = [p for p in module.parameters(recurse=False) if p.ndim == 1]
        found += [(vector, (1, len(vector), 1, 1), True) for vector in vectors]
    return [entry for entry in found if entry[0].requires_grad]


class GroupLasso:
    """Adds strength * sqrt(P_c) * w / ||W_c||_2 to the gradient of w; 0 where the norm is 0."""

    def __init__(self, coupling: Coupling, strength: float) -> None:
        self._coupling = coupling
        self._weights = strength * coupling.sizes.sqrt()

    def add(self) -> None:
        """See `Regulariser`."""
        norms = self._coupling.norms()
        self._coupling.shrink(torch.where(norms > 0, self._weights / norms, 0))

    def state(self) -> dict[str, torch.Tensor]:
        """Return nothing: the penalty depends on the weights alone."""
        return {}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore nothing."""


class NetworkSlimming:
    """Adds strength * sign(gamma) to the gradient of the gammas on the groups' channels."""

    def __init__(self, network: nn.Module, groups: tuple[Group, ...], strength: float) -> None:
        self._strength = strength
        scaled = [(norm.weight, rows) for group in groups for norm, rows, _ in scaled_norms(network, group) if norm.weight.requires_grad]
        self._gammas = [(gamma, torch.tensor(rows, device=gamma.device)) for gamma, rows in scaled]
        if not self._gammas:
            raise ConfigError(
                describe(
                    "regulariser bn_l1: no channels to regularise",
                    given="a network whose prunable channels have no normalisation with a trainable gamma",
                    allowed="a network where at least one group of channels has one",
                    fix="use group_lasso or growing",
                )
            )

    @torch.no_grad()
    def add(self) -> None:
        """See `Regulariser`."""
        for gamma, rows in self._gammas:
            if gamma.grad is not None:
                gamma.grad.index_add_(0, rows, gamma[rows].sign(), alpha=self._strength)

    def state(self) -> dict[str, torch.Tensor]:
        """Return nothing: the penalty depends on the weights alone."""
        return {}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore nothing."""


class GrowingL2:
    """Adds strength_c * w to the gradient of w; strength_c grows faster the less important the channel is in its group.

    Every so many steps strength_c gains growth * (s_max - s_c) / (s_max - s_min), where s_c = ||W_c||_2 and the extremes
    are those of the group; all gain alike where they are equal. The paper's GReg-2 lets all grow alike and its GReg-1 only those
    chosen for removal; the slope between is that of Torch-Pruning's GrowingRegPruner.
    """

    def __init__(self, coupling: Coupling, widths: list[int], strength: float, growth: float, every: int) -> None:
        self._coupling = coupling
        self._widths = widths
        self._growth = growth
        self._every = every
        self._strengths = torch.full_like(coupling.sizes, strength)
        self._steps = 0

    def add(self) -> None:
        """See `Regulariser`."""
        self._coupling.shrink(self._strengths)
        self._steps += 1
        if self._steps % self._every == 0:
            gains = torch.cat([_unimportance(norms) for norms in torch.split(self._coupling.norms(), self._widths)])
            self._strengths = (self._strengths + self._growth * gains).clamp_max(CEILING)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the strengths of all channels and the steps so far."""
        return {"strengths": self._strengths.clone(), "steps": torch.tensor(self._steps)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from the state of an earlier segment."""
        self._strengths = tensors["strengths"].to(self._strengths.device, copy=True)
        self._steps = int(tensors["steps"])


def _unimportance(scores: torch.Tensor) -> torch.Tensor:
    """Return 0 for a group's highest score to 1 for its lowest; 1 for all where they are equal."""
    span = scores.max() - scores.min()
    return torch.where(span > 0, (scores.max() - scores) / span, 1)
