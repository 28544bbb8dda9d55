"""The graph of a network of several inputs gets a placeholder for each."""

import pytest
import torch
from several_inputs import IMAGES, NUMBERS, Measured
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.graph.capture import capture
from bonsai.stages.graph.parting import part_inputs
from bonsai.stages.graph.trace import trace
from bonsai.stages.graph.values import annotate
from bonsai.stages.networks.forms import Form
from bonsai.stages.networks.packed_inputs import joined_inputs, pack_again, pack_inputs

POSITIONS = Form("tuple", ("0", "1"), ((1, 8, 8), (3,)))
NAMES = Form("dict", ("numbers", "image"), ((3,), (1, 8, 8)))


def placeholders(graph: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "placeholder"]


@pytest.mark.parametrize("way", ["torch.fx", "torch.export"])
def test_each_input_gets_a_placeholder_and_nothing_is_left_of_joining(way: str) -> None:
    network = Measured().eval()
    expected = network(IMAGES, NUMBERS)
    packed = pack_inputs(network, POSITIONS)
    if way == "torch.fx":
        traced = trace(packed, (67,))
    else:
        traced = capture(packed, (67,))
        annotate(traced, torch.zeros(2, 67))
    part_inputs(traced, POSITIONS)
    assert placeholders(traced) == ["input_0", "input_1"]
    assert torch.equal(traced(IMAGES, NUMBERS), expected)
    assert torch.equal(pack_again(traced)(joined_inputs((IMAGES, NUMBERS))), expected)
    assert sum(node.op == "call_function" for node in traced.graph.nodes) == (1 if way == "torch.fx" else 2)  # what the network itself computes


def test_inputs_by_name_are_arguments_of_the_graph() -> None:
    network = Measured().eval()
    expected = network(IMAGES, NUMBERS)
    traced = trace(pack_inputs(network, NAMES), (67,))
    part_inputs(traced, NAMES)
    assert torch.equal(traced(image=IMAGES, numbers=NUMBERS), expected)


def test_dropout_of_an_input_stays() -> None:
    network = pack_inputs(nn.Sequential(nn.Dropout(0.5)), Form("dict", ("input",), ((50,),)))
    traced = trace(network, (50,))
    part_inputs(traced, Form("dict", ("input",), ((50,),)))
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]
    assert bool((traced.train()(torch.ones(2, 50)) == 0).any())


class Whole(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


def test_a_graph_that_reads_all_inputs_at_once_is_refused() -> None:
    with pytest.raises(ConfigError, match="the inputs of the network cannot be told apart in its graph"):
        part_inputs(trace(Whole(), (67,)), POSITIONS)
