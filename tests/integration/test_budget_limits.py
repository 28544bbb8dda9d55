"""A whole small run with limits on p99, memory, size and energy: met, missed, refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bonsai.stages.delivery.contents import read_intact

CONFIGS = Path(__file__).parent / "configs"
TINY, CPU, AWAY = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-cpu", "tiny-wide"))
QUICK = ("training.epochs=2", "training.threads=1", "quantize.qat=never", "prune.rounds=2", "timing.fitting=4", "export.min_agreement=0.5")
WIDE = {"p99_ms": 1e4, "memory_mb": 1e3, "size_mb": 1}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("limits")


def run(store: Path, profile: str = CPU, **budget: float) -> subprocess.CompletedProcess[str]:
    settings = [*QUICK, *(f"profile.budget.{key}={limit}" for key, limit in budget.items())]
    words = ["run", TINY, "--profile", profile, "--store", str(store), "--json", *(word for setting in settings for word in ("--set", setting))]
    return subprocess.run([sys.executable, "-m", "bonsai", *words], capture_output=True, text=True, check=False)


def artifacts(store: Path, stage: str) -> int:
    return sum(1 for _ in store.glob(f"{stage}/*"))


def test_limits_that_the_device_cannot_judge_are_refused_before_training(store: Path) -> None:
    refused = run(store, energy_mj=5)
    if refused.returncode == 0:
        pytest.skip("this machine has a meter")
    assert refused.returncode == 2, refused.stderr
    assert "budget.energy_mj cannot be judged on" in refused.stderr
    assert "given:   " in refused.stderr
    assert "may not be read" in refused.stderr or "no INA sensor" in refused.stderr
    away = run(store, AWAY, p99_ms=5)
    assert away.returncode == 2, away.stderr
    assert "the budget limits what cannot be estimated" in away.stderr
    assert artifacts(store, "train_dense") == 0


def test_a_size_that_no_width_meets_is_refused_before_training(store: Path) -> None:
    refused = run(store, size_mb=0.0001)
    assert refused.returncode != 0
    assert "the size budget cannot be met" in refused.stderr
    assert artifacts(store, "train_dense") == 0


def test_limits_that_are_met_have_gates_and_figures_everywhere(store: Path) -> None:
    done = run(store, **WIDE)
    assert done.returncode in {0, 3}, done.stderr  # on a busy machine the latency may be undecided
    (package,) = json.loads(done.stdout)
    verdicts = {gate["name"]: gate["verdict"] for gate in package["gates"]}
    assert {name: verdicts[name] for name in ("p99", "memory", "size")} == dict.fromkeys(("p99", "memory", "size"), "met")
    manifest = read_intact(store / "packages" / "tiny--tiny-cpu")
    shipped = next(row for row in manifest.metrics if row.shipped)
    found = shipped.footprint
    assert found is not None
    assert found.processes == 3
    assert found.memory is not None
    assert 0.05 < found.memory.low <= found.memory_mb <= found.memory.high < 200
    assert found.before_mb + found.memory_mb == pytest.approx(found.peak_mb, rel=0.1)
    assert 0.05 < found.cold_s < 60
    card = (store / "packages" / "tiny--tiny-cpu" / "MODEL_CARD.md").read_text()
    assert "p99 <= 10000 ms, memory <= 1000 MB, size <= 1 MB" in card
    assert "- memory: " in card
    assert "peak memory " in card
    assert "The device meanwhile: " in card
    report = (store / "packages" / "tiny--tiny-cpu" / "report.md").read_text()
    assert "Cold start" in report
    words = ["show", str(store / "packages" / "tiny--tiny-cpu"), "--store", str(store)]
    shown = subprocess.run([sys.executable, "-m", "bonsai", *words], capture_output=True, text=True, check=True).stdout
    assert ", p99 " in shown
    assert ", cold start " in shown


def test_a_size_below_that_of_the_widths_for_the_latency_alone_gives_a_narrower_network(store: Path) -> None:
    shipped = next(row for row in read_intact(store / "packages" / "tiny--tiny-cpu").metrics if row.shipped)
    most = 0.8 * shipped.size_bytes / 1e6
    trunk = artifacts(store, "train_dense")
    done = run(store, size_mb=round(most, 5))
    (package,) = json.loads(done.stdout)
    (gate,) = (gate for gate in package["gates"] if gate["name"] == "size")
    assert gate["verdict"] == "met", done.stderr
    assert gate["found"] <= most
    assert "narrower ones are chosen" in done.stderr
    assert artifacts(store, "train_dense") == trunk, "one trunk for all"


def test_a_p99_that_is_missed_ends_in_code_3_after_a_narrower_attempt(store: Path) -> None:
    done = run(store, p99_ms=0.001)
    assert done.returncode == 3
    assert "p99: " in done.stderr
    assert "MISSED" in done.stderr
    manifest = read_intact(store / "packages" / "tiny--tiny-cpu")
    assert {gate.name: gate.verdict for gate in manifest.gates}["p99"] == "missed"
    first, second = manifest.decisions["attempts"]
    assert sum(second["widths"].values()) < sum(first["widths"].values())
