"""A run killed with SIGKILL in every stage ends with the engine of an undisturbed run with the same latency table."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bonsai.stages.store.manifest import MANIFEST

pytestmark = pytest.mark.slow  # several runs

CONFIGS = Path(__file__).parent / "configs"
QUICK = {"timing": "{runs: 200, fitting: 2, tries: 1, warmup_runs: 20, warmup_seconds: 0.05}", "quantize.epochs": "1", "quantize.frozen_epochs": "0"}
SETTINGS = [text for key, value in QUICK.items() for text in ("--set", f"{key}={value}")]
COMMAND = [
    sys.executable,
    "-m",
    "bonsai.pipeline.cli.main",
    "run",
    str(CONFIGS / "tiny.yaml"),
    "--profile",
    str(CONFIGS / "tiny-cpu.yaml"),
    "--json",
    "--allow-undecided",
    *SETTINGS,
]


@pytest.mark.parametrize("stages", [("train_dense", "quantize"), pytest.param((), marks=pytest.mark.long, id="every stage")])
def test_killed_in_its_stages_the_run_ends_with_the_same_engine(tmp_path: Path, stages: tuple[str, ...]) -> None:
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    stages = stages or every_stage(tmp_path / "before")
    hit = [stage for stage in stages if kill_in(stage, killed)]
    assert hit == list(stages)
    ended = json.loads(subprocess.run([*COMMAND, "--store", str(killed)], capture_output=True, text=True, check=True).stdout)
    for stage in ("characterize", "benchmark", "measure", "time_engine"):  # what was measured: found again only if everything else is made to the same bytes
        shutil.copytree(killed / stage, undisturbed / stage)
    straight = json.loads(subprocess.run([*COMMAND, "--store", str(undisturbed)], capture_output=True, text=True, check=True).stdout)
    assert ended[0]["engine_sha256"] == straight[0]["engine_sha256"]
    assert sorted(f.name for f in (killed / "quantize").iterdir()) == sorted(f.name for f in (undisturbed / "quantize").iterdir())


def every_stage(store: Path) -> tuple[str, ...]:
    """Return the stages of a run in their order, as the dry run after it tells them."""
    subprocess.run([*COMMAND, "--store", str(store)], stdout=subprocess.DEVNULL, check=True)
    (target,) = json.loads(subprocess.run([*COMMAND, "--store", str(store), "--dry-run"], capture_output=True, text=True, check=True).stdout)["targets"]
    return tuple(target["cached"])


def kill_in(stage: str, store: Path) -> bool:
    """Run until the stage is at work, kill the process, and say whether it was caught there."""
    process = subprocess.Popen([*COMMAND, "--store", str(store)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not at_work(stage, store):
        time.sleep(0.005)
    caught = process.poll() is None
    if stage in ("train_dense", "prune", "recover", "quantize"):
        time.sleep(0.3)  # into its training
    process.send_signal(signal.SIGKILL)
    process.wait()
    for kind in (folder for folder in store.iterdir() if not folder.name.startswith(".") and folder.name != "packages"):
        for artifact in kind.iterdir():
            assert (artifact / MANIFEST).exists(), f"{artifact} is half an artifact under its final name"
    return caught


def at_work(stage: str, store: Path) -> bool:
    return any(store.glob(f".work/{stage}-*"))
