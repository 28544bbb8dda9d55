"""A loop in the manner of timm's `train.py`, on scikit-learn's digits: network, optimizer, schedule, mixup and average are timm's."""

import argparse

import bonsai
import timm
import torch
from sklearn.datasets import load_digits
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import AverageMeter, ModelEmaV3, accuracy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SHAPE = (1, 32, 32)


def network() -> nn.Module:
    """Return an untrained network."""
    return timm.create_model("resnet10t", in_chans=1, num_classes=10)


def train_one_epoch(
    epoch: int, model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, schedule: Scheduler, mixup: Mixup, average: ModelEmaV3
) -> float:
    """Train for an epoch, and return the mean loss."""
    model.train()
    criterion, losses = SoftTargetCrossEntropy(), AverageMeter()
    for step, (inputs, labels) in enumerate(loader, start=epoch * len(loader)):
        mixed, targets = mixup(inputs, labels)
        loss = criterion(model(mixed), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, step=step)
        schedule.step_update(step + 1)
        losses.update(loss.item(), len(inputs))
    return losses.avg


@torch.no_grad()
def validate(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the top-1 accuracy in percent."""
    return accuracy(model.eval()(images), labels)[0].item()


def main() -> None:
    """Train and validate it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--latency-ms", type=float, required=True, help="budget for one inference")
    args = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()
    images = nn.functional.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=SHAPE[1:])
    labels = torch.tensor(digits.target)
    loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=50, shuffle=True)
    x_test, y_test = images[1400:], labels[1400:]
    model = network()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=2e-3, weight_decay=0.02)
    schedule, _ = create_scheduler_v2(optimizer, num_epochs=args.epochs, warmup_epochs=1, step_on_epochs=False, updates_per_epoch=len(loader))
    mixup = Mixup(mixup_alpha=0.1, cutmix_alpha=0.1, label_smoothing=0.1, num_classes=10)
    average = ModelEmaV3(model, decay=0.98, use_warmup=True)
    settings = {"steps": args.epochs * len(loader), "averages": [average.module], "precision": "fp32", "prune": {"margin": 0.1}}
    pruner = bonsai.Pruner(model, optimizer, x_test, latency_ms=args.latency_ms, **settings)
    optimizer.register_step_pre_hook(lambda *_: pruner.observe())
    optimizer.register_step_post_hook(lambda *_: pruner.step())
    for epoch in range(args.epochs):
        loss = train_one_epoch(epoch, model, loader, optimizer, schedule, mixup, average)
        print(f"epoch {epoch}: loss {loss:.3f}, top-1 of the average {validate(average.module, x_test, y_test):.1f} %")
    package = bonsai.deploy(average.module, x_test, latency_ms=args.latency_ms, evaluate=lambda run: run(x_test).argmax(1) == y_test.numpy(), samples=x_test)
    print("\n".join(gate.sentence for gate in package.gates))


if __name__ == "__main__":
    main()
