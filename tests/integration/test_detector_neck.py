"""A detector with C2f blocks and a neck over three scales: every layer but the outputs is pruned, and the rest is quantised, exported and run."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from detector import HEADS, SHAPE, Detector
from torch import nn

from bonsai.stages.backends.reference import open_graph
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.networks.counting import count_macs
from bonsai.stages.networks.edits.channels import keep_channels
from bonsai.stages.networks.edits.records import KeepChannels, Quantizers
from bonsai.stages.networks.inspection import random_images
from bonsai.stages.networks.several_outputs import select_outputs
from bonsai.stages.pruning.blocks import groups_with_blocks
from bonsai.stages.pruning.equality import outputs
from bonsai.stages.pruning.groups import Group, Kept, blocks_of
from bonsai.stages.pruning.pruner import Plan, Pruner
from bonsai.stages.pruning.settling import settle, wake
from bonsai.stages.pruning.surgery import check_cut, cut
from bonsai.stages.pruning.trial import refused_groups
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.selection.operator_records import count_macs_at
from bonsai.stages.selection.operators import read_operators

IMAGES = random_images(4, SHAPE)


def detector(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = select_outputs(Detector(), HEADS)
    wake(network, IMAGES)
    settle(network, IMAGES)
    return network.eval()


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    return detector()


@pytest.fixture(scope="module")
def groups(dense: nn.Module) -> tuple[Group, ...]:
    return groups_with_blocks(dense, SHAPE)


def half(groups: tuple[Group, ...], without: str = "") -> Kept:
    generator = torch.Generator().manual_seed(0)
    drawn = {group.name: tuple(sorted(torch.randperm(group.width, generator=generator)[: group.width // 2].tolist())) for group in groups}
    return {group.name: () if without and group.block == without else drawn[group.name] for group in groups}


def test_every_layer_but_the_outputs_is_in_a_group_that_may_be_cut(dense: nn.Module, groups: tuple[Group, ...]) -> None:
    assert refused_groups(dense, groups, SHAPE) == {}
    touched = {member.module for group in groups for member in group.members if member.side == "out"}
    layers = {name for name, module in dense.named_modules() if isinstance(module, nn.Conv2d)}
    assert layers - touched == {f"heads.{place}.1" for place in range(3)}
    by_name = {group.name: group for group in groups}
    assert by_name["c3.split.0"].width == 32  # a channel of one half goes with the same of the other, and with what is added to it
    assert {member.module for member in by_name["c3.split.0"].members} >= {"c3.inner.0.second.0", "c3.inner.1.second.0", "c3.join.0"}


def test_removing_is_masking_and_the_work_is_foreseen(dense: nn.Module, groups: tuple[Group, ...]) -> None:
    operators, unseen = read_operators(dense, groups, SHAPE)
    assert unseen == ()
    assert set(blocks_of(groups)) == {"c2.inner.0", "c3.inner.0", "c3.inner.1", "c4.inner.0", "c4.inner.1", "c5.inner.0"}
    for without in ("", "c3.inner.1"):
        pruned, kept = copy.deepcopy(dense), half(groups, without)
        edit = cut(pruned, groups, kept)
        assert check_cut(dense, pruned, edit, SHAPE) < 1e-4
        assert count_macs_at(operators, {name: len(channels) for name, channels in kept.items()}) == count_macs(pruned, SHAPE) < count_macs(dense, SHAPE) / 2.5


def test_a_pruned_neck_trains_on_and_loads_again(groups: tuple[Group, ...]) -> None:
    network = detector().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    pruner = Pruner(network, optimizer, SHAPE, groups=groups)
    for place in range(3):
        optimizer.zero_grad()
        network(IMAGES).square().mean().backward()
        pruner.observe()
        optimizer.step()
        if place == 1:
            pruner.apply(Plan(kept=half(groups)))
    moments = {parameter: state["momentum_buffer"].shape for parameter, state in optimizer.state.items()}
    assert moments == {parameter: parameter.shape for parameter in network.parameters()}
    again = detector(seed=1)
    keep_channels(again, KeepChannels.model_validate_json(pruner.edit.model_dump_json()))
    again.load_state_dict(network.state_dict())
    assert torch.equal(outputs(again, IMAGES), outputs(network, IMAGES))


@pytest.mark.slow  # two exports
def test_a_pruned_neck_runs_as_float_and_int8_files(dense: nn.Module, groups: tuple[Group, ...], tmp_path: Path) -> None:
    pruned = copy.deepcopy(dense)
    cut(pruned, groups, half(groups))
    quantised = insert_quantizers(copy.deepcopy(pruned), SHAPE, Quantizers(dialect="ort", weight_bits=7))
    calibrate(quantised, [random_images(16, SHAPE)])
    quantised.eval()
    prepared = to_export_form(quantised, "ort")
    forms = (("float", pruned, pruned, 0, 1e-3), ("ort", prepared, quantised, count_quantised(prepared), 0.1))
    for dialect, form, reference, number, limit in forms:
        (tmp_path / dialect).mkdir()
        file = tmp_path / dialect / "model.onnx"
        write_graph(form, SHAPE, file, opset=20, batch=None, dialect=dialect, float_type="fp32", quantised=number)
        expected, found = outputs(reference, IMAGES), torch.from_numpy(np.array(open_graph(file)(IMAGES.numpy())))
        assert float((found - expected).abs().mean() / expected.std()) < limit
    assert count_quantised(prepared) >= 40
