"""Lightning's trainer prunes an unchanged LightningModule, and goes on after a kill."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bonsai.profiles.errors import ConfigError
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.networks.cifar_resnet import resnet8

pytestmark = [
    pytest.mark.slow,  # latency is measured
    pytest.mark.filterwarnings("ignore"),  # Lightning's
]
lightning = pytest.importorskip("lightning.pytorch")

TIMING = TimingConfig.model_validate({"runs": 400, "block": 25, "warmup_runs": 50, "warmup_seconds": 0.0, "fitting": 8, "tries": 1, "verdict": {"most": 3}})
SETTINGS = {
    "latency": 0.6,
    "precision": "fp32",
    "timing": TIMING,
    "prune": {"epi.every": 0.08, "epi.window": 1, "epi.monotone": 1, "rounds": 2, "margin": 0.05, "tolerance": 0.2},
}


class Classifier(lightning.LightningModule):
    """Somebody's module: nothing in it knows of pruning."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = resnet8(in_channels=1, num_classes=10, width=48)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.model(images), labels)

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)}


class Killed(Exception):
    """The machine went away."""


class Kill(lightning.Callback):
    """Ends a training after an epoch."""

    def on_train_epoch_start(self, trainer: "lightning.Trainer", pl_module: "lightning.LightningModule") -> None:
        if trainer.current_epoch == 1:
            raise Killed


@pytest.fixture(scope="module")
def loader() -> DataLoader[tuple[torch.Tensor, ...]]:
    digits = load_digits()
    images = nn.functional.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=16)
    return DataLoader(TensorDataset(images, torch.tensor(digits.target)), batch_size=64)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lightning")


def trainer_with(folder: Path, *callbacks: object, **options: object) -> "lightning.Trainer":
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    saving = lightning.callbacks.ModelCheckpoint(folder, save_last=True)
    return lightning.Trainer(max_epochs=2, accelerator="cpu", devices=1, default_root_dir=folder, callbacks=[*callbacks, saving], **quiet, **options)


def test_an_unchanged_module_is_pruned_and_a_killed_fit_goes_on(store: Path, loader: DataLoader[tuple[torch.Tensor, ...]], tmp_path: Path) -> None:
    from bonsai.lightning import Pruning

    def pruning() -> Pruning:
        return Pruning(torch.zeros(2, 1, 16, 16), store=store, **SETTINGS)

    whole, callback = Classifier(), pruning()
    trainer_with(tmp_path / "whole", callback).fit(whole, loader)
    assert callback.pruner is not None
    assert callback.pruner.finished
    widths = {name: len(channels) for name, channels in callback.pruner.kept.items()}
    assert callback.pruner.target.latency(widths) <= callback.pruner.target.limit_ms
    assert sum(widths.values()) < sum(callback.pruner.target.network.dense_widths.values())

    with pytest.raises(Killed):
        trainer_with(tmp_path / "killed", pruning(), Kill()).fit(Classifier(), loader)
    resumed, second = Classifier(), pruning()
    trainer_with(tmp_path / "killed", second).fit(resumed, loader, ckpt_path=tmp_path / "killed" / "last.ckpt")
    assert second.pruner is not None
    assert second.pruner.kept == callback.pruner.kept
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())


def test_what_would_go_wrong_in_silence_is_refused(store: Path, loader: DataLoader[tuple[torch.Tensor, ...]], tmp_path: Path) -> None:
    from bonsai.lightning import Pruning

    average = lightning.callbacks.EMAWeightAveraging()
    with pytest.raises(ConfigError, match="an average of the weights would keep the network that was not cut"):
        trainer_with(tmp_path, Pruning(torch.zeros(2, 1, 16, 16), store=store, **SETTINGS), average).fit(Classifier(), loader)
    with pytest.raises(ConfigError, match=r"(?s)no network of this name.*given: +network.*allowed: +model"):
        trainer_with(tmp_path, Pruning(torch.zeros(2, 1, 16, 16), module="network", store=store, **SETTINGS)).fit(Classifier(), loader)
