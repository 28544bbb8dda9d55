"""From recipe to package: networks with attention, with a channel shuffle, with grouped convolutions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bonsai import compress, load
from bonsai.stages.networks.attention import Attention
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.counting import count_parameters
from bonsai.stages.networks.packed import RECORD
from bonsai.stages.networks.registry import build_network

pytestmark = pytest.mark.slow  # a whole run each

CONFIGS = Path(__file__).parent / "configs"
QUICK: dict[str, Any] = {
    "data.options.size": 32,
    "training.epochs": 3,
    "training.lr": 0.01,
    "training.threads": 1,
    "timing": {"runs": 200, "block": 25, "warmup_runs": 20, "warmup_seconds": 0.0, "fitting": 4, "tries": 1, "verdict": {"most": 3}},
    "prune.rounds": 1,
    "prune.margin": 0.1,
    "prune.tolerance": 0.3,
    "quantize.epochs": 2,
    "profile.budget.latency": 0.9,
    "profile.gates": {"max_drop": 1},
}
ADAM = {"training.optimizer": "adamw", "training.lr": 0.002}
FLOAT = {"profile.target.precision": "fp32"}
TIMM_VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 128, "num_heads": 4}
TORCH_VIT = {"hidden_dim": 128, "mlp_dim": 256}
RUNS: dict[str, tuple[ModelConfig, dict[str, Any], str]] = {  # network, settings, a group whose channels are pruned
    "timm-vit": (ModelConfig(name="timm/vit_tiny_patch16_224", options=TIMM_VIT), ADAM, "blocks.1.attn.qkv"),
    "torchvision-vit": (ModelConfig(name="small_vits:torchvision_vit", options=TORCH_VIT), ADAM, "encoder.layers.encoder_layer_1.self_attention.q_proj"),
    "shufflenet": (ModelConfig(name="torchvision/shufflenet_v2_x0_5"), FLOAT, "stage2.0.branch2.0"),
    "regnet": (ModelConfig(name="timm/regnety_002"), FLOAT, "s4.b1.conv1.conv"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_leads_to_a_smaller_network_in_an_engine(name: str, tmp_path: Path) -> None:
    model, settings, group = RUNS[name]
    named = {"name": name, "model": {"name": model.name, "options": model.options}}
    (package,) = compress(str(CONFIGS / "tiny.yaml"), str(CONFIGS / "tiny-cpu.yaml"), {**QUICK, **settings, **named}, store=tmp_path)
    folder = tmp_path / "packages" / package.name
    assert group in json.loads((folder / RECORD).read_text())["kept"]
    network = load(folder).eval()
    dense = build_network(model, (1, 32, 32), 10)
    assert count_parameters(network) < 0.95 * count_parameters(dense)
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 10)
    assert any(isinstance(module, Attention) for module in dense.modules()) == (name == "torchvision-vit")
    latency = next(gate for gate in package.gates if gate.name == "latency")
    assert latency.found < 1
