"""Hugging Face's trainer prunes an image classifier of transformers, and goes on from a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from bonsai.profiles.errors import ConfigError
from bonsai.stages.backends.timing_config import TimingConfig

pytestmark = [
    pytest.mark.slow,  # latency is measured
    pytest.mark.filterwarnings("ignore"),  # the library's
]
pytest.importorskip("transformers")

TIMING = TimingConfig.model_validate({"runs": 400, "block": 25, "warmup_runs": 50, "warmup_seconds": 0.0, "fitting": 8, "tries": 1, "verdict": {"most": 3}})
SETTINGS: dict[str, Any] = {
    "latency": 0.6,
    "precision": "fp32",
    "timing": TIMING,
    "prune": {"epi.every": 0.08, "epi.window": 1, "epi.monotone": 1, "rounds": 2, "margin": 0.05, "tolerance": 0.2},
}


def classifier() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    shape = {"num_channels": 1, "embedding_size": 48, "hidden_sizes": [48, 96], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**shape, num_labels=10))


def trainer_of(model: nn.Module, folder: Path, callback: Any, **options: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    digits = load_digits()
    images = nn.functional.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=32)
    samples = [{"pixel_values": image, "labels": int(label)} for image, label in zip(images, digits.target, strict=True)]
    settings = {
        "per_device_train_batch_size": 64,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
    }
    arguments = TrainingArguments(str(folder), save_strategy="epoch", logging_strategy="no", **settings, **options)
    return Trainer(model=model, args=arguments, train_dataset=samples, callbacks=[callback])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transformers")


def test_a_classifier_is_pruned_and_a_training_goes_on_from_a_checkpoint(store: Path, tmp_path: Path) -> None:
    from bonsai.transformers import Pruning

    def pruning() -> Pruning:
        return Pruning(torch.zeros(2, 1, 32, 32), store=store, **SETTINGS)

    whole, first = classifier(), pruning()
    trainer_of(whole, tmp_path, first).train()
    assert first.pruner is not None
    assert first.pruner.finished
    widths = {name: len(channels) for name, channels in first.pruner.kept.items()}
    assert first.pruner.target.latency(widths) <= first.pruner.target.limit_ms
    assert sum(widths.values()) < sum(first.pruner.target.network.dense_widths.values())

    checkpoint = sorted(tmp_path.glob("checkpoint-*"))[0]
    resumed, second = classifier(), pruning()
    second.resume(resumed, checkpoint)
    trainer_of(resumed, tmp_path / "again", second).train(resume_from_checkpoint=str(checkpoint))
    assert second.pruner is not None
    assert second.pruner.kept == first.pruner.kept
    expected = whole.state_dict()
    assert all(torch.allclose(value, expected[name], atol=1e-5) for name, value in resumed.state_dict().items())


def test_a_checkpoint_without_the_callback_is_refused(tmp_path: Path) -> None:
    from bonsai.transformers import Pruning

    with pytest.raises(ConfigError, match="the checkpoint holds nothing of the pruner"):
        Pruning(torch.zeros(2, 1, 32, 32)).resume(classifier(), tmp_path)
