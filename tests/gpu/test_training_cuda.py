"""Training, masking and cutting on a GPU that torch sees."""

from pathlib import Path

import pytest
import torch

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.pruning.config import RegulariserConfig
from bonsai.stages.pruning.groups import WidthPlan
from bonsai.stages.pruning.policy import RecoverConfig
from bonsai.stages.pruning.schedule import ScheduleConfig
from bonsai.stages.steps.prune import prune
from bonsai.stages.steps.recover import recover
from bonsai.stages.steps.train_dense import train_dense
from bonsai.stages.store.store import Store
from bonsai.stages.training.config import DistillConfig, TrainConfig

pytestmark = pytest.mark.gpu

CONFIG = TrainConfig(epochs=12, batch_size=64, lr=0.05, device="cuda")
GROUPS = ("conv1", "layer1.0.conv1", "layer2.0.conv1", "layer2.0.conv2", "layer3.0.conv1", "layer3.0.conv2")
WIDTHS = {"conv1": 8, "layer2.0.conv1": 16, "layer3.0.conv2": 24}
KINDS = [{}, {"precision": "bf16"}, {"precision": "fp16", "optimizer": "adamw", "lr": 0.005, "ema": 0.9}]


@pytest.fixture(autouse=True)
def cuda(gpu_required: bool) -> None:
    if not torch.cuda.is_available():
        (pytest.fail if gpu_required else pytest.skip)("torch sees no GPU")


def compressed(store: Store, model: ModelConfig, digits: Dataset, config: TrainConfig, regulariser: str = "none") -> tuple[Checkpoint, Checkpoint]:
    penalty = {"name": regulariser, **({"growth": 1e-4, "every": 2} if regulariser == "growing" else {})}
    common = {"dataset": digits, "model": model, "training": config, "regulariser": RegulariserConfig.model_validate(penalty)}
    dense = store.run(train_dense, **common, regularised=GROUPS if regulariser != "none" else (), previous=None, stop=13)
    cut = store.run(
        prune,
        dense=dense,
        plan=WidthPlan(widths=WIDTHS),
        reselection=None,
        dataset=digits,
        training=config,
        criterion="bn_gradient",
        schedule=ScheduleConfig(name="geometric", steps=3, iterations=3, soft=True),
        finetune=None,
        batchnorm_batches=4,
    )
    recovered = store.run(recover, pruned=cut, dataset=digits, training=config, length=RecoverConfig(), finetune=None, distill=DistillConfig(), teacher=dense)
    return cut, recovered


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_network_is_compressed_on_the_gpu_and_runs_on_the_cpu(kind: dict[str, object], store: Store, small_model: ModelConfig, digits: Dataset) -> None:
    config = CONFIG.model_copy(update=kind)
    cut, final = compressed(store, small_model, digits, config)
    assert {name: len(channels) for name, channels in final.kept.items()} == WIDTHS
    assert cut.metrics["cut_difference"] <= 1e-4
    assert final.history[-1].validation > 0.5
    network = load_network(final)
    assert next(network.parameters()).device.type == "cpu"
    assert network(torch.zeros(2, *digits.image_shape)).shape == (2, 10)


def test_a_run_on_the_gpu_is_repeated_bit_by_bit(tmp_path: Path, small_model: ModelConfig, digits: Dataset) -> None:
    first, second = (compressed(Store(tmp_path / name), small_model, digits, CONFIG, "growing")[1] for name in "ab")
    weights = [load_network(checkpoint).state_dict() for checkpoint in (first, second)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_gpu_and_cpu_train_alike(tmp_path: Path, small_model: ModelConfig, digits: Dataset) -> None:
    common = {"dataset": digits, "model": small_model, "regulariser": RegulariserConfig(), "regularised": (), "previous": None, "stop": 4}
    found = [Store(tmp_path / d).run(train_dense, **common, training=CONFIG.model_copy(update={"device": d})) for d in ("cpu", "cuda")]
    cpu, gpu = (load_network(checkpoint).state_dict() for checkpoint in found)
    assert all(torch.allclose(value.float(), gpu[name].float(), rtol=0.05, atol=0.02) for name, value in cpu.items())
