"""What a caller hands over is checked before anything is measured."""

import pytest
import torch
from torch import fx, nn

from bonsai.pipeline.loop.in_hand import form_of, profile_of, prune_config, require_bare, require_no_graph
from bonsai.profiles.errors import ConfigError
from bonsai.stages.networks.forms import Form
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


@pytest.mark.parametrize(
    ("example", "told"),
    [
        (torch.zeros(3), r"\(3,\) torch.float32"),
        (torch.zeros(2, 3, dtype=torch.long), "torch.int64.*embed whole numbers, such as token ids, outside of the network"),
        ([torch.zeros(1, 3)], "given: +list"),
        ((), "an empty tuple"),
        ({}, "an empty dict"),
        ((torch.zeros(2, 3), torch.zeros(2)), r"1: \(2,\) torch.float32.*as \(n, 1\)"),
        ((torch.zeros(2, 3), torch.zeros(3, 3)), r"0: \(2, 3\).*1: \(3, 3\).*all of one n"),
        ({"image": torch.zeros(2, 3), "ids": torch.zeros(2, 3, dtype=torch.long)}, r"ids: \(2, 3\) torch.int64"),
        ({"the image": torch.zeros(2, 3)}, "a dict of some by argument"),
    ],
)
def test_an_example_that_is_no_batch_is_refused(example: object, told: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)the example input is no batch.*{told}"):
        form_of(example)


def test_the_shape_of_a_sample_is_that_behind_the_batch() -> None:
    assert form_of(torch.zeros(2, 3, 8, 9)) == Form("tensor", ("0",), ((3, 8, 9),))
    assert form_of(torch.zeros(1, 3, 64, dtype=torch.float16)).shapes == ((3, 64),)
    image, numbers = torch.zeros(2, 3, 8, 9), torch.zeros(2, 4)
    assert form_of((image, numbers)) == Form("tuple", ("0", "1"), ((3, 8, 9), (4,)))
    assert form_of({"numbers": numbers, "image": image}) == Form("dict", ("numbers", "image"), ((4,), (3, 8, 9)))


def test_a_graph_of_several_inputs_is_refused() -> None:
    graph = fx.symbolic_trace(nn.Bilinear(2, 2, 1))
    require_no_graph(graph, form_of(torch.zeros(1, 2)))
    with pytest.raises(ConfigError, match="a graph of several inputs cannot be pruned or quantised"):
        require_no_graph(graph, form_of((torch.zeros(1, 2), torch.zeros(1, 2))))


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
    assert prune_config({"epi.every": 0.05, "criterion": "snip"}).epi.every == 0.05
    assert prune_config(PruneConfig(floor=0.2)).floor == 0.2
    with pytest.raises(ConfigError, match="criterium"):
        prune_config({"criterium": "snip"})
