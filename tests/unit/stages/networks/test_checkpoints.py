import copy
import json
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, build, load_network, save_tensors
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.records import Edit, Quantizers
from bonsai.stages.networks.registry import to_channels_last
from bonsai.stages.pruning.coupling.finding import find_groups
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.store.store import Store, stage

SHAPE = (1, 16, 16)
FRESH = """
import json, sys, torch
from bonsai import load
images = torch.linspace(-1, 1, 512).reshape(2, 1, 16, 16)
print(json.dumps([load(folder)(images).tolist() for folder in sys.argv[1:]]))
assert "torch_pruning" not in sys.modules, "loading has imported Torch-Pruning"
"""


def test_a_fresh_process_loads_pruned_and_quantised_networks_to_the_bit_without_torch_pruning(small_model: ModelConfig, store: Store) -> None:
    pruned = build(small_model, SHAPE, 10)
    channels = cut(pruned, find_groups(pruned, SHAPE), {"conv1": (0, 2, 5), "layer3.0.conv1": tuple(range(1, 64, 3))})
    to_channels_last(pruned)
    images = torch.linspace(-1, 1, 512).reshape(2, *SHAPE)
    quantizers = Quantizers(dialect="ort", weight_bits=8, kept_float=("fc",))
    quantised = insert_quantizers(copy.deepcopy(pruned), SHAPE, quantizers)
    to_channels_last(quantised)
    calibrate(quantised, [images])

    def saved(folder: Path, network: nn.Module, *edits: Edit) -> Checkpoint:
        save_tensors(folder / WEIGHTS, network.state_dict())
        return Checkpoint(folder=folder, model=small_model.model_copy(update={"seed": 7}), image_shape=SHAPE, num_classes=10, edits=edits)

    @stage(version=1)
    def prune(out_dir: Path) -> Checkpoint:
        return saved(out_dir, pruned, channels)

    @stage(version=1)
    def quantize(out_dir: Path) -> Checkpoint:
        return saved(out_dir, quantised, channels, quantizers)

    made = [store.run(prune), store.run(quantize)]
    assert [checkpoint.quantizers for checkpoint in made] == [None, quantizers]
    assert [type(load_network(checkpoint)).__name__ for checkpoint in made] == ["CifarResNet", type(quantised).__name__]
    fresh = subprocess.run([sys.executable, "-c", FRESH, *(str(checkpoint.folder) for checkpoint in made)], capture_output=True, text=True, check=False)
    assert fresh.returncode == 0, fresh.stderr
    assert json.loads(fresh.stdout) == [network.eval()(images).tolist() for network in (pruned, quantised)]
