import pytest
import torch
from torch import nn
from torch.nn import functional

from bonsai.profiles.errors import ConfigError
from bonsai.stages.graph.trace import trace
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.registry import build_network


class FunctionalDropout(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, 0.5, self.training)


@pytest.mark.parametrize("training", [False, True])
def test_dropout_follows_the_mode_of_the_moment_not_that_of_the_trace(training: bool) -> None:
    traced = trace(FunctionalDropout().train(training), (1, 8, 8))
    x = torch.ones(4, 1, 8, 8)
    torch.manual_seed(0)
    assert 0.3 < float((traced.train()(x) == 0).float().mean()) < 0.7
    assert torch.equal(traced.eval()(x), x)


@pytest.mark.parametrize("training", [False, True])
def test_stochastic_depth_drops_branches_in_training_alone(training: bool) -> None:
    network = build_network(ModelConfig(name="efficientnet_b0", options={"stochastic_depth_prob": 0.9}), (3, 32, 32), 10).train(training)
    traced = trace(network, (3, 32, 32))
    for module in traced.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.momentum, module.p = 0.0, 0.0
    x = torch.randn(4, 3, 32, 32)
    torch.manual_seed(0)
    with torch.no_grad():
        assert not torch.equal(traced.train()(x), traced(x))
        assert torch.equal(traced.eval()(x), traced(x))


def test_a_branch_on_values_cannot_be_traced() -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ConfigError, match=r"traced neither by torch.fx nor by torch.export\n(.|\n)*Branches"):
        trace(Branches(), (1, 8, 8))
