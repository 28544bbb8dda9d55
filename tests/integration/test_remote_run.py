"""Whole runs for a device behind a real sshd, without torch, 50 ms away: they end as a local run does, and losses cost nothing."""

import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from far_device import Far, far_device

from bonsai import compress
from bonsai.pipeline.run.characterize import characterize_device
from bonsai.profiles.loader import load_profile
from bonsai.profiles.shared_tables import read_tables
from bonsai.stages.backends.local_device import LocalDevice, local
from bonsai.stages.delivery.contents import read_intact
from bonsai.stages.store.manifest import read_manifest

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parent / "configs"
RECIPE, PROFILE = str(CONFIGS / "tiny.yaml"), str(CONFIGS / "tiny-cpu.yaml")
QUICK: dict[str, object] = {
    "training.epochs": 1,
    "prune.epi": {"every": 0.2, "window": 1, "monotone": 0, "latest": 0.5},
    "prune.rounds": 1,
    "prune.tolerance": 0.5,
    "timing": {"runs": 100, "block": 10, "warmup_runs": 10, "warmup_seconds": 0, "fitting": 2, "tries": 1, "verdict": {"most": 3}},
    "profile.target.precision": "fp32",
    "profile.budget": {"latency": 0.6},
    "profile.gates": {"max_drop": 1},
    "profile.points": [{"batch": 4, "budget": {"latency": 1}}],
}
AGAIN = ("compile", "measure", "time_engine", "assess", "package", "characterize")
"""Stages that the far run does itself. It takes the timings of untrained networks from the local run, for both mean the same device: so widths are the same
whatever the noise of a busy machine is."""


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with far_device(tmp_path_factory.mktemp("far")) as far:
        yield far


def widths_in(store: Path) -> dict[str, int]:
    (pruned,) = (store / "prune").iterdir()
    widths: dict[str, int] = read_manifest(pruned).inputs["plan"]["widths"]
    return widths


@contextmanager
def losses(far: Far, seconds: float) -> Iterator[list[str]]:
    """Lose the connection, the server or the agent again and again while the block runs."""
    done, lost = threading.Event(), list[str]()

    def lose() -> None:
        while not done.wait(seconds):
            kind = ("connection", "agent", "server")[len(lost) % 3]
            if kind == "connection":
                far.proxy.drop()
            elif kind == "agent":
                for agent in far.server.agents():
                    os.kill(agent, 9)
            else:
                far.server.stop()
                far.server.start()
            lost.append(kind)

    loser = threading.Thread(target=lose)
    loser.start()
    try:
        yield lost
    finally:
        done.set()
        loser.join()


def test_a_run_that_is_disturbed_ends_as_a_local_one(far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [found.file for found in characterize_device(RECIPE, PROFILE, QUICK, store=tmp_path / "tables", out=tmp_path / "tables", detect=False)]
    settings = {**QUICK, "profile.tables": tables}
    here, there = tmp_path / "here", tmp_path / "there"
    (local_package,) = compress(RECIPE, PROFILE, settings, store=here)
    shutil.copytree(here, there, ignore=shutil.ignore_patterns(*AGAIN, "packages", ".*"))
    home = local.describe(load_profile("local-cpu", {"target.precision": "fp32"}).target)
    for verb in ("describe", "build", "open", "run", "time", "operators", "kernels"):
        monkeypatch.delattr(LocalDevice, verb)  # nothing is measured on this machine
    monkeypatch.setenv("BONSAI_DEVICE_WAIT", "120")
    with losses(far, 3) as lost:
        (package,) = compress(RECIPE, PROFILE, {**settings, **far.overrides()}, store=there)
    assert lost
    assert widths_in(there) == widths_in(here)
    assert package.name == local_package.name
    manifest = read_intact(there / "packages" / package.name)
    assert manifest.device == home
    assert manifest.compatibility == read_intact(here / "packages" / package.name).compatibility
    assert "ssh://" not in (there / "packages" / package.name / "manifest.json").read_text()
    shipped = package.rows[-1]
    assert shipped.latency is not None
    assert (shipped.latency.source, shipped.accuracy.measured_by) == ("measured", "engine")
    assert len(list((there / "time_engine").iterdir())) == 2  # fresh timings there judged the budget, and the point's
    assert [gate.name for gate in package.gates] == [gate.name for gate in local_package.gates] == ["latency", "accuracy drop", "latency at batch 4"]


def bonsai(command: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bonsai", *command], cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_device_that_is_gone_ends_a_command_with_code_5_and_the_same_command_goes_on(far: Far, tmp_path: Path) -> None:
    target = {"precision": "fp32", "device": {"address": far.address, "python": str(far.python)}}
    (tmp_path / "far.yaml").write_text(yaml.safe_dump({"extends": "local-cpu", "name": "far", "target": target}))
    settings = [f"--set={key}={value}" for key, value in (("timing.fitting", 0), ("timing.runs", 60), ("timing.warmup_runs", 5), ("timing.tries", 1))]
    command = ["characterize", RECIPE, "--profile", "far.yaml", "--no-steps", *settings]
    with bonsai(command, tmp_path, BONSAI_DEVICE_WAIT="1") as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "20/" in line:
                far.proxy.refuses = True
                far.proxy.drop()
    far.proxy.refuses = False
    text = "".join(said)
    assert process.returncode == 5, text
    assert f"then go on: `bonsai {shlex.join(command)}`" in text
    with bonsai(command, tmp_path) as process:
        assert process.stdout is not None
        text = process.stdout.read()
    assert process.returncode == 0, text
    assert "30/" in text
    assert " 10/" not in text  # those were measured already
    (table,) = (tmp_path / "tables").glob("*.csv")
    assert {found.meta.source for found in read_tables(table).values()} == {"measured"}
