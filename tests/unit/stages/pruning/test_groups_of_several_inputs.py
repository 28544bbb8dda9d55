"""Groups of networks that take several inputs joined, and their cuts."""

import copy

import pytest
import torch
from several_inputs import Compared, Measured
from torch import nn

from bonsai.stages.networks.forms import Form
from bonsai.stages.networks.inspection import random_images, random_inputs
from bonsai.stages.networks.packed_inputs import pack_inputs
from bonsai.stages.networks.several_outputs import select_outputs
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.groups import first_channels
from bonsai.stages.pruning.surgery import check_cut, cut
from bonsai.stages.pruning.trial import refused_groups

MEASURED = Form("dict", ("numbers", "image"), ((3,), (1, 8, 8)))
COMPARED = Form("tuple", ("0", "1"), ((1, 8, 8), (1, 8, 8)))


@pytest.mark.parametrize(
    ("network", "form", "total", "names"),
    [
        (Measured(), MEASURED, 67, ["body.0", "body.3", "numbers.0"]),
        (select_outputs(Compared(), ("same",)), COMPARED, 128, ["body.0"]),  # the maps are given out, whatever is selected
    ],
    ids=["measured", "compared"],
)
def test_channels_behind_every_input_are_found_and_cut(network: nn.Module, form: Form, total: int, names: list[str]) -> None:
    dense = pack_inputs(network, form).eval()
    groups = find_groups(dense, (total,))
    assert [group.name for group in groups] == names
    assert refused_groups(dense, groups, (total,)) == {}
    pruned = copy.deepcopy(dense)
    edit = cut(pruned, groups, first_channels(dict.fromkeys(names, 6)))
    assert check_cut(dense, pruned, edit, (total,)) < 1e-3
    assert pruned.get_submodule("body.0").out_channels == 6


def test_two_images_of_a_sample_are_not_the_same() -> None:
    found = random_inputs(4, pack_inputs(Compared(), COMPARED), (128,))
    assert torch.equal(found[:, :64].reshape(4, 1, 8, 8), random_images(4, (1, 8, 8)))
    assert not torch.equal(found[:, :64], found[:, 64:])


def test_numbers_differ_from_sample_to_sample() -> None:
    found = random_images(6, (5,))
    assert found.shape == (6, 5)
    assert bool((found.std(0) > 0.1).all())
