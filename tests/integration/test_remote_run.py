"""Whole runs for a device behind a real sshd, without torch, 50 ms away: they end as a local run does, and losses cost nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from far_device import Far, far_device

from bonsai import compress
from bonsai.pipeline.run.characterize import characterize_device
from bonsai.stages.backends.local_device import LocalDevice
from bonsai.stages.store.manifest import read_manifest

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parent / "configs"
RECIPE, PROFILE = str(CONFIGS / "tiny.yaml"), str(CONFIGS / "tiny-cpu.yaml")
QUICK: dict[str, object] = {
    "training.epochs": 2,
    "timing": {"runs": 200, "block": 10, "warmup_runs": 20, "warmup_seconds": 0, "fitting": 4, "tries": 1, "verdict": {"most": 3}},
    "profile.target.precision": "fp32",
    "profile.gates": {"max_drop": 1},
}


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with far_device(tmp_path_factory.mktemp("far")) as far:
        yield far


def widths_in(store: Path) -> dict[str, int]:
    (pruned,) = (store / "prune").iterdir()
    return dict(read_manifest(pruned).inputs["plan"]["widths"])


def test_a_run_ends_as_a_local_one_with_the_same_table(far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [found.file for found in characterize_device(RECIPE, PROFILE, QUICK, store=tmp_path / "tables", out=tmp_path / "tables", detect=False)]
    settings = {**QUICK, "profile.tables": tables}
    (here,) = compress(RECIPE, PROFILE, settings, store=tmp_path / "here")
    for verb in ("describe", "build", "open", "run", "time", "operators", "kernels"):
        monkeypatch.delattr(LocalDevice, verb)  # nothing is measured on this machine
    (there,) = compress(RECIPE, PROFILE, {**settings, **far.overrides()}, store=tmp_path / "there")
    print(widths_in(tmp_path / "here"), widths_in(tmp_path / "there"))
    assert widths_in(tmp_path / "there") == widths_in(tmp_path / "here")
