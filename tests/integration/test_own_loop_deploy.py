"""A plain PyTorch loop on real digits, and what eight changed lines of it lead to; and everything that `deploy` refuses."""

import copy
import difflib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import bonsai
from bonsai.pipeline.cli.main import app
from bonsai.profiles.errors import ConfigError
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.contents import read_any_intact, read_intact
from bonsai.stages.delivery.deployed import DeployedManifest
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.errors import DeviceUnavailable, VerificationError
from bonsai.stages.measurement.scores import NO_INTERVAL

BEFORE = '''
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
labels = torch.tensor(digits.target)
loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=50, shuffle=True)
model = nn.Sequential(
    nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
    nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for epoch in range(6):
    for inputs, targets in loader:
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
'''
CHANGES = {
    "import torch\n": "import bonsai, copy, torch\n",
    "for epoch": "dense = copy.deepcopy(model)\npruner = bonsai.Pruner(model, optimizer, images[:8], latency_ms=BUDGET, steps=6 * len(loader), steps_per_epoch=len(loader))\nfor epoch",
    "        optimizer.step()": "        pruner.observe()\n        optimizer.step()",
    "        optimizer.zero_grad()\n": "        optimizer.zero_grad()\n        pruner.step()\n",
}
TIMING = TimingConfig(runs=400, seconds=2, fitting=4)
