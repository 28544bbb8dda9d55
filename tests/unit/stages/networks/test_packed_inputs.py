"""Networks that take several inputs joined."""

import copy

import pytest
import torch
from several_inputs import IMAGES, NUMBERS, OTHERS, Compared, Measured
from torch import fx, nn

from bonsai.stages.networks.forms import Form
from bonsai.stages.networks.held import build_held, hold, structure_of
from bonsai.stages.networks.packed_inputs import Packed, input_specs, joined_inputs, pack_again, pack_inputs, packed_form, packed_shape
from bonsai.stages.networks.several_outputs import select_outputs

POSITIONS = Form("tuple", ("0", "1"), ((1, 8, 8), (3,)))
NAMES = Form("dict", ("numbers", "image"), ((3,), (1, 8, 8)))
ONE = Form("tensor", ("0",), ((1, 8, 8),))


@pytest.mark.parametrize(("form", "parts"), [(POSITIONS, (IMAGES, NUMBERS)), (NAMES, (NUMBERS, IMAGES))], ids=["tuple", "dict"])
def test_a_packed_network_takes_its_inputs_joined_or_in_order(form: Form, parts: tuple[torch.Tensor, ...]) -> None:
    network = Measured().eval()
    expected = network(IMAGES, NUMBERS)
    names = [name for name, _ in network.named_modules()]
    packed = pack_inputs(network, form)
    for each in (packed, copy.deepcopy(packed)):
        assert torch.equal(each(joined_inputs(parts)), expected)
        assert torch.equal(each(parts), expected)
        assert [name for name, _ in each.named_modules()] == names
        assert packed_form(each) == form
    assert (packed_shape(form), [spec.shape for spec in input_specs(packed)]) == ((67,), list(form.shapes))


def test_a_network_of_one_tensor_stays_as_it_is() -> None:
    network = nn.Linear(3, 3)
    assert pack_inputs(network, ONE) is network
    assert (packed_form(network), input_specs(network), packed_shape(ONE)) == (None, (), (1, 8, 8))


def test_a_single_input_that_has_a_name_keeps_its_shape() -> None:
    form = Form("dict", ("input",), ((4, 3),))
    packed = pack_inputs(nn.Linear(3, 3), form)
    assert packed_shape(form) == (4, 3)
    assert packed(torch.zeros(2, 4, 3)).shape == (2, 4, 3)


def test_selected_outputs_are_joined_too() -> None:
    network = Compared().eval()
    expected = network(IMAGES, OTHERS)
    packed = pack_inputs(select_outputs(network, ("maps", "same")), Form("tuple", ("0", "1"), ((1, 8, 8), (1, 8, 8))))
    assert torch.equal(packed(joined_inputs((IMAGES, OTHERS))), torch.cat([each.flatten(1) for each in expected.values()], 1))


def test_a_network_that_is_held_is_known_by_its_inputs_too() -> None:
    other = POSITIONS._replace(shapes=((1, 16, 4), (3,)))
    assert structure_of(pack_inputs(Measured(), POSITIONS)) != structure_of(pack_inputs(Measured(), other)) != structure_of(Measured())
    built = build_held(hold(pack_inputs(Measured(), POSITIONS)).name)
    assert packed_form(built) == POSITIONS
    assert built(torch.zeros(2, 67)).shape == (2, 4)


def test_a_graph_gets_a_wrapper() -> None:
    graph = fx.symbolic_trace(Measured().eval())
    packed = pack_inputs(graph, POSITIONS)
    assert isinstance(packed, Packed)
    assert torch.equal(packed(joined_inputs((IMAGES, NUMBERS))), graph(IMAGES, NUMBERS))
    assert pack_again(graph) is graph
