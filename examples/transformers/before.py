"""An image classifier of transformers in Hugging Face's Trainer, on scikit-learn's digits."""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

SHAPE = (1, 32, 32)


def network() -> nn.Module:
    """Return an untrained network."""
    sizes = {"embedding_size": 48, "hidden_sizes": [48, 96], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(num_channels=1, num_labels=10, **sizes))


def main() -> None:
    """Train and test it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()
    images = nn.functional.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=SHAPE[1:])
    samples = [{"pixel_values": image, "labels": int(label)} for image, label in zip(images, digits.target, strict=True)]
    y_test = digits.target[1400:]
    model = network()
    settings = {"num_train_epochs": args.epochs, "per_device_train_batch_size": 50, "learning_rate": 1e-3}
    arguments = TrainingArguments("trained", save_strategy="no", report_to=[], use_cpu=True, **settings)
    trainer = Trainer(model=model, args=arguments, train_dataset=samples[:1400])
    trainer.train()
    found = trainer.predict(samples[1400:])
    print(f"accuracy: {(found.predictions.argmax(1) == y_test).mean():.3f}")


if __name__ == "__main__":
    main()
