"""What a caller hands over is checked before anything is measured."""

import pytest
import torch
from torch import nn

from bonsai.pipeline.loop.in_hand import profile_of, prune_config, require_bare, shape_of
from bonsai.profiles.errors import ConfigError
from bonsai.stages.pruning.config import PruneConfig


def tied() -> nn.Module:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    return network


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (nn.DataParallel(nn.Linear(2, 2)), "in a wrapper.*model.module"),
        (torch.compile(nn.Linear(2, 2), backend="eager"), "in a wrapper.*after the cut"),
        ("resnet", "is no network.*str"),
        (tied(), "share a parameter"),
    ],
    ids=["parallel", "compiled", "text", "tied"],
)
def test_what_cannot_be_cut_is_refused(network: object, told: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        require_bare(network, "the model")


@pytest.mark.parametrize("example", [torch.zeros(3), torch.zeros(2, 3, dtype=torch.long), [torch.zeros(1, 3)], {"x": torch.zeros(1, 3)}])
def test_an_example_that_is_no_batch_is_refused(example: object) -> None:
    with pytest.raises(ConfigError, match="no batch of images or series"):
        shape_of(example)


def test_the_shape_of_a_sample_is_that_behind_the_batch() -> None:
    assert shape_of(torch.zeros(2, 3, 8, 9)) == (3, 8, 9)
    assert shape_of(torch.zeros(1, 3, 64, dtype=torch.float16)) == (3, 64)


def test_a_budget_and_a_precision_are_laid_over_the_profile() -> None:
    profile = profile_of("local-cpu", latency=None, latency_ms=4.0, precision="fp32")
    assert (profile.budget.latency, profile.budget.latency_ms, profile.target.precision) == (None, 4.0, "fp32")
    assert profile_of("local-cpu", latency=0.3, latency_ms=None, precision=None).budget.latency == 0.3
    with pytest.raises(ConfigError, match=r"one unit\n.*latency=0.3, latency_ms=4.0"):
        profile_of("local-cpu", latency=0.3, latency_ms=4.0, precision=None)
    with pytest.raises(ConfigError, match="no profile of this name"):
        profile_of("local-gpu", latency=0.3, latency_ms=None, precision=None)


def test_settings_of_pruning_are_a_record_or_dotted_keys() -> None:
    assert prune_config(None) == PruneConfig()
    assert prune_config({"epi.every": 0.05, "criterion": "taylor"}).epi.every == 0.05
    assert prune_config(PruneConfig(floor=0.2)).floor == 0.2
    with pytest.raises(ConfigError, match="criterium"):
        prune_config({"criterium": "taylor"})
