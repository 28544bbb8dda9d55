"""A loop in the manner of torchvision's reference for classification, on scikit-learn's digits: schedule, mixup, clipping and average as there."""

import argparse

import bonsai
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.transforms import v2

SHAPE = (3, 32, 32)


class ExponentialMovingAverage(AveragedModel):
    """An average whose buffers are averaged too."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def network() -> nn.Module:
    """Return an untrained network."""
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


def train_one_epoch(model: nn.Module, criterion: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, model_ema: ExponentialMovingAverage) -> None:
    """Train for an epoch."""
    model.train()
    for image, target in loader:
        loss = criterion(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        model_ema.update_parameters(model)


@torch.inference_mode()
def evaluate(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the top-1 accuracy."""
    return (model.eval()(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    """Train and evaluate it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--latency-ms", type=float, required=True, help="budget for one inference")
    args = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()
    images = nn.functional.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=SHAPE[1:]).repeat(1, 3, 1, 1)
    labels = torch.tensor(digits.target)
    mixup_or_cutmix = v2.RandomChoice([v2.MixUp(alpha=0.2, num_classes=10), v2.CutMix(alpha=0.2, num_classes=10)])
    dataset = TensorDataset(images[:1400], labels[:1400])
    loader = DataLoader(dataset, batch_size=50, shuffle=True, collate_fn=lambda batch: mixup_or_cutmix(*default_collate(batch)))
    x_test, y_test = images[1400:], labels[1400:]
    model = network()
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    warmup, main_schedule = LinearLR(optimizer, 0.1, total_iters=1), CosineAnnealingLR(optimizer, max(args.epochs - 1, 1))
    lr_scheduler = SequentialLR(optimizer, [warmup, main_schedule], milestones=[1])
    model_ema = ExponentialMovingAverage(model, decay=0.98)
    settings = {"steps": args.epochs * len(loader), "averages": [model_ema], "precision": "fp32", "prune": {"margin": 0.1}}
    pruner = bonsai.Pruner(model, optimizer, x_test, latency_ms=args.latency_ms, **settings)
    optimizer.register_step_pre_hook(lambda *_: pruner.observe())
    optimizer.register_step_post_hook(lambda *_: pruner.step())
    for epoch in range(args.epochs):
        train_one_epoch(model, criterion, optimizer, loader, model_ema)
        lr_scheduler.step()
        print(f"epoch {epoch}: top-1 {evaluate(model, x_test, y_test):.3f}, of the average {evaluate(model_ema, x_test, y_test):.3f}")
    package = bonsai.deploy(model_ema.module, x_test, latency_ms=args.latency_ms, evaluate=lambda run: run(x_test).argmax(1) == y_test.numpy(), samples=x_test)
    print("\n".join(gate.sentence for gate in package.gates))


if __name__ == "__main__":
    main()
