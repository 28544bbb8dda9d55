"""The device side runs on arm64: what an emulator can prove for a Raspberry Pi. No time that it takes says anything."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from arm_root import Board, installed, make_root
from safetensors.numpy import load_file
from ssh_server import SshServer

from bonsai import compress
from bonsai.profiles.loader import load_profile
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.backends.device import OperatorPoint
from bonsai.stages.backends.devices import device_of
from bonsai.stages.errors import DeviceUnavailable

pytestmark = pytest.mark.slow  # makes a root, and trains

TINY = str(Path(__file__).parent / "configs" / "tiny.yaml")
QUICK = {"training.epochs": 1, "quantize.qat": "never", "profile.budget.latency": 0.5, "profile.gates.max_drop": None}
PACKAGE, SAMPLES = "tmp/package", "tmp/samples.npy"


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    with installed(make_root()) as board:
        yield board


@pytest.fixture(scope="module")
def package(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of a network that was trained, pruned and quantised for a Raspberry Pi 5, also in the root, with samples beside it."""
    folder = tmp_path_factory.mktemp("arm64")
    (made,) = compress(TINY, "cortex-a76", QUICK, store=folder)
    package = folder / "packages" / made.name
    shutil.rmtree(board.root / PACKAGE, ignore_errors=True)
    shutil.copytree(package, board.root / PACKAGE)
    np.save(board.root / SAMPLES, load_file(package / "golden.safetensors")["input"])
    return package


def test_a_package_is_verified_on_arm64(board: Board, package: Path) -> None:
    done = board.bonsai("verify", f"/{PACKAGE}", "--require-run")
    assert done.returncode == 0, done.stderr
    assert "machine: has onnxruntime" in done.stdout
    assert "aarch64, asimd, asimddp" in done.stdout
    assert "gives the golden outputs of" in done.stdout


def test_bonsai_and_the_packages_own_program_predict_what_they_predict_here(board: Board, package: Path) -> None:
    there = [board.bonsai("predict", f"/{PACKAGE}", f"/{SAMPLES}", "--json"), board.python(f"/{PACKAGE}/predict.py", f"/{SAMPLES}", "--json")]
    here = subprocess.run([sys.executable, package / "predict.py", board.root / SAMPLES, "--json"], capture_output=True, text=True, check=True)
    expected = [json.loads(line) for line in here.stdout.splitlines()]
    assert expected
    for done in there:
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["class"] for each in found] == [each["class"] for each in expected]
        assert [each["probability"] for each in found] == pytest.approx([each["probability"] for each in expected], abs=1e-4)


def test_times_under_emulation_are_refused(board: Board, package: Path) -> None:
    done = board.bonsai("verify", f"/{PACKAGE}", "--time")
    assert done.returncode == 5
    assert "gives the golden outputs of" in done.stdout
    assert "error: no time is measured here, because this machine is emulated" in done.stderr


def test_a_check_of_the_board_says_that_it_is_emulated(board: Board) -> None:
    done = board.bonsai("device", "check", "local-cpu")
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["processor"] == "aarch64 (emulated)"
    assert rows["system"].startswith("Linux aarch64, Python 3.11")
    assert "asimd, asimddp" in done.stdout
    assert rows["EMULATED"].endswith("results can be checked here, and no time is measured")


def test_a_python_that_does_not_start_alone_is_told_with_what_mends_it(board: Board, package: Path) -> None:
    done = board.bonsai("verify", f"/{PACKAGE}", without="BONSAI_PYTHON")
    assert done.returncode == 1
    assert "Exec format error" in done.stderr
    assert "BONSAI_PYTHON" in done.stderr


@pytest.fixture
def overrides(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What a profile needs to mean the board behind a real sshd."""
    python = tmp_path / "board" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {" ".join(_quoted(word) for word in board.command)} "$@"\n')
    python.chmod(0o755)
    with SshServer(tmp_path) as server:
        monkeypatch.setenv("BONSAI_SSH", server.ssh)
        yield {"target.device.address": server.address, "target.device.python": str(python)}


def _quoted(word: str) -> str:
    return f"'{word}'"


def test_the_board_answers_over_ssh_and_measures_nothing(board: Board, package: Path, overrides: dict[str, str]) -> None:
    profile = load_profile("cortex-a76", overrides)
    device = device_of(profile.target)
    found = device.check_up()
    assert found.emulated == "the aarch64 kernel has no ptrace"
    assert found.round_trip_ms is not None
    info = device.describe(profile.target)
    assert (info.device, info.system, info.present) == ("aarch64 (emulated)", "Linux aarch64", True)
    assert any("gives the golden outputs of" in line for line in device.verify(package))
    with pytest.raises(DeviceUnavailable, match="no time is measured here, because this machine is emulated"):
        list(device.operators([OperatorPoint(OperatorClass(op="linear"), 8, 8)], profile.target))
