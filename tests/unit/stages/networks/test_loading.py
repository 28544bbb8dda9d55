"""Tensors of a file put into a network whose modules ask which version of them wrote it."""

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from bonsai.stages.networks.loading import load_weights


class Versioned(nn.Module):
    """As torchvision's MNASNet: a state without a version is that of an older network."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        if metadata.get("version") != 2:
            raise ValueError(f"version {metadata.get('version')}")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_a_network_that_asks_for_its_version_takes_what_a_file_held() -> None:
    written, read = nn.Sequential(Versioned()), nn.Sequential(Versioned())
    tensors = load(save(written.state_dict()))
    with pytest.raises(ValueError, match="version None"):
        read.load_state_dict(tensors)
    load_weights(read, tensors)
    assert torch.equal(read[0].fc.weight, written[0].fc.weight)


def test_other_names_are_refused() -> None:
    with pytest.raises(RuntimeError, match="Unexpected key"):
        load_weights(nn.Linear(2, 2), {**nn.Linear(2, 2).state_dict(), "more": torch.zeros(1)})
