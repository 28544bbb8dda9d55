"""Networks that are trained in branches compute the same when they are fused, and what does not is refused."""

import pytest
import torch
from branched import SHAPE, Branched, Failing, Pair, Wrong
from pydantic import TypeAdapter
from torch import nn

from bonsai.stages.networks.calling import copy_network
from bonsai.stages.networks.cifar_resnet import resnet8
from bonsai.stages.networks.edits.applying import apply
from bonsai.stages.networks.edits.fusing import Unfusable, can_fuse, fuse, fusion_of, require_same_fused
from bonsai.stages.networks.edits.records import Edit, Fuse
from bonsai.stages.networks.inspection import random_images
from bonsai.stages.pruning.settling import settle, wake

IMAGES = random_images(4, SHAPE)
MODULES = ("stem", "same", "depthwise", "pair", "deep")


class Both(nn.Module):
    """A method of the same name that needs arguments, and a layer of that name."""

    def __init__(self) -> None:
        super().__init__()
        self.switch_to_deploy = nn.Identity()

    def fuse(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right


class Built(nn.Module):
    """A network that was fused when it was built: its method has nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Idle()


class Idle(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(1, 1, 1)

    def reparameterize(self) -> None:
        return


def trained(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = kind()
    wake(network, IMAGES)
    settle(network, IMAGES)
    return network


def test_a_fused_network_computes_what_its_branches_do_with_fewer_convolutions() -> None:
    network = trained(Branched)
    edit = fusion_of(network)
    assert edit == Fuse(modules=MODULES)
    assert require_same_fused(network, edit, IMAGES) < 1e-10
    before = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    expected = network.eval()(IMAGES)
    fuse(network, edit)
    torch.testing.assert_close(network(IMAGES), expected, rtol=1e-4, atol=1e-4)
    assert (before, sum(isinstance(module, nn.Conv2d) for module in network.modules())) == (14, 9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_nothing_is_fused_where_no_module_has_a_method_for_it() -> None:
    assert fusion_of(resnet8(in_channels=1, num_classes=10)) is None
    assert fusion_of(nn.Sequential(Both())) is None
    assert fusion_of(Built()) is None
    assert (can_fuse(Both()), can_fuse(Pair(1, 1))) == (False, True)


def test_a_network_is_left_as_it_was_by_what_only_looks() -> None:
    network = trained(Branched)
    names, training = list(network.state_dict()), {name: module.training for name, module in network.named_modules()}
    edit = fusion_of(network)
    assert edit is not None
    require_same_fused(network, edit, IMAGES)
    assert list(network.state_dict()) == names
    assert {name: module.training for name, module in network.named_modules()} == training


def test_what_stays_is_trained_as_before_and_what_is_new_is_trained() -> None:
    network = trained(Branched)
    network.same.gate.bias.requires_grad_(False)
    fuse(network, Fuse(modules=MODULES))
    assert [name for name, parameter in network.named_parameters() if not parameter.requires_grad] == ["same.gate.bias"]
    assert all(module.training for module in network.modules())


def test_the_edit_is_data_that_fuses_another_network_alike() -> None:
    network, other = trained(Branched), Branched()
    edit = fusion_of(network)
    assert edit is not None
    read = TypeAdapter[Edit](Edit).validate_json(edit.model_dump_json())
    assert isinstance(read, Fuse)
    fuse(network, edit)
    apply(other, read, SHAPE).load_state_dict(network.state_dict())
    assert torch.equal(other.eval()(IMAGES), network.eval()(IMAGES))


def test_a_method_that_forgets_a_branch_is_refused() -> None:
    network = trained(Wrong)
    edit = fusion_of(network)
    assert edit is not None
    with pytest.raises(Unfusable, match=r"computes something else than its branches\n.*a difference of .* after 5 modules were fused"):
        require_same_fused(network, edit, IMAGES)


def test_a_method_that_fails_is_named() -> None:
    with pytest.raises(Unfusable, match=r"module stem of the network cannot be fused\n.*Refusing.reparameterize\(\): NotImplementedError: only on Tuesdays"):
        fusion_of(Failing())


def test_a_network_whose_code_runs_in_single_precision_alone_is_compared_in_that() -> None:
    class Single(Branched):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.nn.functional.conv2d(x, torch.ones(1, 1, 1, 1)))

    network = trained(Single)
    assert 1e-12 < require_same_fused(copy_network(network), Fuse(modules=MODULES), IMAGES) < 1e-4
