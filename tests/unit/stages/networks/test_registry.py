import pytest
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.registry import require_own_weights


def test_layers_that_share_a_parameter_are_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    require_own_weights(network)
    network[2].weight = network[0].weight
    with pytest.raises(ConfigError, match=r"given:   0\.weight and 2\.weight"):
        require_own_weights(network)
