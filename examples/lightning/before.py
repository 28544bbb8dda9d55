"""A LightningModule on scikit-learn's digits."""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SHAPE = (1, 24, 24)


def network() -> nn.Module:
    """Return an untrained network."""
    layers = [nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()]
    layers += [nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*layers)


class Classifier(LightningModule):
    """Its training and its test."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network()

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.model(images), labels)

    def test_step(self, batch: list[torch.Tensor], index: int) -> None:
        """Log the accuracy."""
        images, labels = batch
        self.log("accuracy", (self.model(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> dict[str, object]:
        """Return SGD with a cosine schedule."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs)}


def main() -> None:
    """Train and test it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    seed_everything(0)
    digits = load_digits()
    images = nn.functional.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=SHAPE[1:])
    labels = torch.tensor(digits.target)
    loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=50, shuffle=True)
    x_test, y_test = images[1400:], labels[1400:]
    module = Classifier()
    trainer = Trainer(max_epochs=args.epochs, accelerator="cpu", devices=1, logger=False)
    trainer.fit(module, loader)
    trainer.test(module, DataLoader(TensorDataset(x_test, y_test), batch_size=50))


if __name__ == "__main__":
    main()
