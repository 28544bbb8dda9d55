"""A plain PyTorch loop with a pruner: five lines more, measured on this machine."""

import copy
import json
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import bonsai
from bonsai.profiles.errors import BudgetError, ConfigError
from bonsai.stages.backends.timing_config import TimingConfig

pytestmark = pytest.mark.slow  # latency is measured

Batches = list[tuple[torch.Tensor, torch.Tensor]]
TIMING = TimingConfig.model_validate({"runs": 400, "block": 25, "warmup_runs": 50, "warmup_seconds": 0.0, "fitting": 8, "tries": 1, "verdict": {"most": 3}})
PRUNE = {"epi.every": 0.08, "epi.window": 1, "epi.monotone": 1, "rounds": 3, "margin": 0.05, "tolerance": 0.1}


class Residual(nn.Module):
    """Two convolutions beside a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = (nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1))
        self.branch = nn.Sequential(*layers, nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.branch(x)).relu()


def network() -> nn.Module:
    torch.manual_seed(0)
    stem = (nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), Residual(32))
    rest = (nn.Conv2d(32, 48, 3, 2, 1), nn.BatchNorm2d(48), nn.ReLU(), Residual(48), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))
    return nn.Sequential(*stem, *rest)


@pytest.fixture(scope="module")
def batches() -> Batches:
    digits = load_digits()
    images = nn.functional.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, size=24)
    return list(zip(images.split(64), torch.tensor(digits.target).split(64), strict=True))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


def pruner_of(model: nn.Module, store: Path, **budget: float) -> bonsai.Pruner:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return bonsai.Pruner(model, optimizer, torch.zeros(2, 1, 24, 24), steps=100, timing=TIMING, store=store, precision="fp32", **budget)


def train(store: Path, batches: Batches, epochs: int = 2, **settings: object) -> tuple[nn.Module, bonsai.Pruner]:
    model, loader = network(), batches[:22]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = bonsai.Pruner(model, optimizer, loader[0][0], steps=epochs * len(loader), prune=PRUNE, timing=TIMING, store=store, **settings)  # type: ignore[arg-type]
    for _ in range(epochs):
        for images, labels in loader:
            nn.functional.cross_entropy(model(images), labels).backward()
            pruner.observe()
            optimizer.step()
            optimizer.zero_grad()
            pruner.step()
    return model, pruner


def made(store: Path) -> set[str]:
    return {f"{folder.parent.name}/{folder.name}" for folder in store.glob("*/*") if not folder.parent.name.startswith(".")}


def test_a_loop_ends_with_a_network_that_fits_and_a_second_one_measures_little(store: Path, batches: Batches, tmp_path: Path) -> None:
    model, pruner = train(store, batches, latency=0.5, precision="fp32")
    assert pruner.finished
    assert pruner.fit is not None
    assert pruner.fit.rounds[-1].upper_ms <= pruner.target.limit_ms
    assert model[0].out_channels == len(pruner.kept["0"]) < 32
    assert pruner.latency_ms == pytest.approx(pruner.target.latency(pruner.fit.widths))
    page = pruner.report(tmp_path / "report").read_text()
    assert "What was pruned" in page
    assert "svg" in page
    first = made(store)
    again, other = train(store, batches, latency=0.5, precision="fp32")
    assert {name.partition("/")[0] for name in made(store) - first} <= {"benchmark", "compile", "export_untrained"}
    assert not any(name.startswith("characterize/") for name in made(store) - first)
    assert other.target.dense_ms == pruner.target.dense_ms
    if other.fit == pruner.fit:
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_budget_that_no_network_meets_is_refused_before_training(store: Path) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BudgetError, match="the latency budget cannot be met"):
        bonsai.Pruner(
            model,
            torch.optim.SGD(model.parameters(), lr=0.1),
            torch.zeros(2, 1, 24, 24),
            steps=100,
            latency_ms=1e-4,
            timing=TIMING,
            store=store,
            precision="fp32",
        )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_report_before_the_cut_is_refused(store: Path) -> None:
    model = network()
    pruner = bonsai.Pruner(
        model, torch.optim.SGD(model.parameters(), lr=0.1), torch.zeros(2, 1, 24, 24), steps=100, latency=0.5, timing=TIMING, store=store, precision="fp32"
    )
    with pytest.raises(ConfigError, match="nothing to report yet"):
        pruner.report(store / "report")
    assert json.loads(json.dumps(pruner.state_dict()["kept"]))["0"] == list(range(32))
