"""The U-Net: sizes, pruning through its concatenations, its ONNX file."""

import copy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from bonsai.stages.graph.exporting import export_onnx
from bonsai.stages.graph.names import INPUT
from bonsai.stages.networks.unet import UNet, unet
from bonsai.stages.pruning.surgery import check_cut, cut, find_groups

SHAPE = (3, 12, 20)


def small(*, depth: int = 2) -> UNet:
    torch.manual_seed(0)
    return unet(in_channels=3, num_classes=5, width=8, depth=depth).eval()


@pytest.mark.parametrize("size", [(12, 20), (13, 19), (4, 4)])
@pytest.mark.parametrize("depth", [1, 2])
def test_maps_have_the_size_of_the_images(size: tuple[int, int], depth: int) -> None:
    assert small(depth=depth)(torch.zeros(2, 3, *size)).shape == (2, 5, *size)


def test_width_and_depth_set_the_channels_of_every_level() -> None:
    assert {group.name: group.width for group in find_groups(small(depth=1), SHAPE)} == {
        "down.0.0.0": 8,
        "down.0.1.0": 8,
        "down.1.0.0": 16,
        "down.1.1.0": 16,
        "narrow.0.0": 8,
        "up.0.0.0": 8,
        "up.0.1.0": 8,
    }


def test_the_way_back_sees_details_of_the_image_itself() -> None:
    network, image = small(), torch.rand(1, 3, 12, 20)
    other = image.clone()
    other[0, :, 5, 7] += 1
    changed = (network(image) - network(other)).abs().amax((0, 1))
    assert changed[5, 7] > 2 * changed.mean()


def test_channels_leave_through_the_concatenations() -> None:
    dense = small()
    groups = find_groups(dense, SHAPE)
    kept = {group.name: tuple(range(1, group.width, 2)) for group in groups}
    pruned = copy.deepcopy(dense)
    cut(pruned, groups, kept, SHAPE)
    assert check_cut(dense, pruned, groups, kept, SHAPE) <= 1e-4
    assert [pruned.up[level][0][0].in_channels for level in range(2)] == [16, 8]


@pytest.mark.slow
def test_its_onnx_file_gives_the_same_maps(tmp_path: Path) -> None:
    network, images = small(), torch.rand(3, 3, 13, 20)
    export_onnx(network, (3, 13, 20), tmp_path / "model.onnx", 20)
    (found,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {INPUT: images.numpy()})
    np.testing.assert_allclose(found, network(images).detach(), atol=1e-4)
