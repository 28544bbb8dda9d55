"""Tensors of a file put into a network."""

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn


def load_weights(network: nn.Module, tensors: Mapping[str, torch.Tensor], *, strict: bool = True) -> None:
    """Load tensors that this version of a network has written, as `load_state_dict` does.

    A file keeps no versions of modules, and some modules ask for theirs: torchvision's MNASNet takes none for a network of long ago.

    Args:
        network: Changed in place.
        tensors: By name of the `state_dict`.
        strict: Whether all names must be there, and no others.

    Raises:
        RuntimeError: Names or shapes are others.
    """
    state = OrderedDict(tensors)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]  # torch's own place for it
    network.load_state_dict(state, strict=strict)
