"""The network of a package: its program opens in plain torch, its weights in the class, both to the bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, build, save_tensors
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.records import Edit, Quantizers
from bonsai.stages.networks.packed import PROGRAM, read_network, write_network
from bonsai.stages.networks.registry import to_channels_last
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.insert import insert_quantizers

SHAPE = (1, 16, 16)
IMAGES = torch.linspace(-1, 1, 3 * 256).reshape(3, *SHAPE)
PLAIN_TORCH = """
import json, sys
sys.modules["bonsai"] = None
import torch
images = torch.linspace(-1, 1, 3 * 256).reshape(3, 1, 16, 16)
network = torch.export.load(sys.argv[1]).module()
print(json.dumps([network(images[:count]).tolist() for count in (1, 3)]))
"""


@pytest.fixture(params=["float", "ort", "trt"])
def network(request: pytest.FixtureRequest, small_model: ModelConfig) -> tuple[nn.Module, tuple[Edit, ...]]:
    """Return a pruned network, in float or quantised for a dialect, and its edits."""
    pruned = build(small_model, SHAPE, 10)
    channels = cut(pruned, find_groups(pruned, SHAPE), {"conv1": (0, 2, 5), "layer3.0.conv1": tuple(range(1, 64, 3))})
    if request.param == "float":
        to_channels_last(pruned)
        return pruned.eval(), (channels,)
    quantizers = Quantizers(dialect=request.param, weight_bits=8, kept_float=("fc",))
    quantised = insert_quantizers(pruned, SHAPE, quantizers)
    to_channels_last(quantised)
    calibrate(quantised, [IMAGES])
    return quantised.eval(), (channels, quantizers)


@pytest.fixture
def checkpoint(network: tuple[nn.Module, tuple[Edit, ...]], small_model: ModelConfig, tmp_path: Path) -> Checkpoint:
    (tmp_path / "checkpoint").mkdir()
    save_tensors(tmp_path / "checkpoint" / WEIGHTS, network[0].state_dict())
    return Checkpoint(folder=tmp_path / "checkpoint", model=small_model.model_copy(update={"seed": 7}), image_shape=SHAPE, num_classes=10, edits=network[1])


def test_both_forms_give_the_network_s_outputs_to_the_bit(network: tuple[nn.Module, tuple[Edit, ...]], checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_network(tmp_path, checkpoint)
    expected = [network[0](IMAGES[:count]).tolist() for count in (1, 3)]
    fresh = subprocess.run([sys.executable, "-c", PLAIN_TORCH, str(tmp_path / PROGRAM)], capture_output=True, text=True, check=False)
    assert fresh.returncode == 0, fresh.stderr
    assert json.loads(fresh.stdout) == expected
    loaded = read_network(tmp_path).eval()
    assert [loaded(IMAGES[:count]).tolist() for count in (1, 3)] == expected


def test_the_program_is_the_same_every_time_and_tells_nothing_of_this_machine(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_network(tmp_path / name, checkpoint)
    content = (tmp_path / "first" / PROGRAM).read_bytes()
    assert content == (tmp_path / "second" / PROGRAM).read_bytes()
    assert str(Path(__file__).parents[4]).encode() not in content
    assert sys.prefix.encode() not in content
