"""A run that was killed, wherever, ends as one that was left alone: the same artifacts, the same engine."""

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from forked import Ended, Runs

from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.store.manifest import MANIFEST, Manifest

CONFIGS = Path(__file__).parents[1] / "integration" / "configs"
QUICK = {"timing": "{runs: 100, fitting: 2, tries: 1, warmup_runs: 10, warmup_seconds: 0.02}", "quantize.epochs": "1", "quantize.frozen_epochs": "0"}
SETTINGS = [text for key, value in QUICK.items() for text in ("--set", f"{key}={value}")]
ONE = ["run", str(CONFIGS / "tiny.yaml"), "--profile", str(CONFIGS / "tiny-wide.yaml"), "--json"]
"""Nothing of it is timed, so that all of it can be compared."""
ALL = ["run", str(CONFIGS / "tiny.yaml"), "--json", "--allow-undecided", *SETTINGS]
for profile in (CONFIGS / "tiny-cpu.yaml", Path(__file__).parent / "configs" / "tiny-openvino.yaml", CONFIGS / "tiny-rtx.yaml"):
    ALL += ["--profile", str(profile)]
TIMED = ("characterize", "benchmark", "measure", "time_engine")
NOT_REPEATED = ("compile", "assess", "package", *TIMED)
"""TensorRT for RTX and OpenVINO do not always build the same bytes twice."""
OUTCOME = ("golden.safetensors", "test_results.safetensors")
"""What an engine gave for test images: files of the package."""


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    with Runs(tmp_path, {"BONSAI_TIMING_LOCK": str(tmp_path / "timing.lock")}) as started:
        yield started


def digests(store: Path, but: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the digest of every finished artifact by its address; what has a final name is finished."""
    found = {}
    for kind in (folder for folder in store.iterdir() if folder.is_dir() and not folder.name.startswith(".")):
        for artifact in kind.iterdir() if kind.name not in ("packages", *but) else ():
            manifest = Manifest.model_validate_json((artifact / MANIFEST).read_text(encoding="utf-8"))
            found[f"{kind.name}/{artifact.name}"] = str(manifest.record["digest"])
    return found


def require_quiet(ended: Ended) -> None:
    assert "Traceback" not in ended.said, ended.said[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("most", [3, pytest.param(10_000, marks=pytest.mark.long, id="all")])
def test_killed_before_each_kind_of_rename_fsync_and_save_a_run_ends_as_one_left_alone(tmp_path: Path, runs: Runs, most: int) -> None:
    killed, alone = tmp_path / "killed", tmp_path / "alone"
    done: list[str] = []
    while len(done) < most:
        ended = runs.run([*ONE, "--store", str(killed)], done=done)
        if ended.code == 0:
            break
        require_quiet(ended)
        assert ended.code == -signal.SIGKILL, ended.said[-3000:]
        done.append(ended.died_at)
    assert len(done) >= min(most, 25)
    straight = runs.run([*ONE, "--store", str(alone)])
    ended = runs.run([*ONE, "--store", str(killed)])
    assert (straight.code, ended.code) == (0, 0), ended.said[-3000:]
    assert digests(killed, ("package",)) == digests(alone, ("package",))  # which tells when each was made
    print(f"killed before {len(done)} renames, fsyncs and saves")


@pytest.mark.parametrize(
    ("arguments", "kills"),
    [pytest.param(ONE, 3, marks=pytest.mark.long), pytest.param(ALL, 120, marks=pytest.mark.long)],
    ids=["one profile", "three profiles"],
)
def test_killed_at_random_moments_a_run_ends_as_one_left_alone(tmp_path: Path, runs: Runs, arguments: list[str], kills: int) -> None:
    moments, hits, stores = random.Random(0), 0, 0
    while hits < kills:
        stores += 1
        killed, alone = tmp_path / f"killed{stores}", tmp_path / f"alone{stores}"
        while hits < kills:
            ended = runs.run([*arguments, "--store", str(killed)], meanwhile=lambda pid: kill_later(pid, moments.uniform(0.2, 4)))
            require_quiet(ended)
            if ended.code == 0:
                break
            assert ended.code == -signal.SIGKILL, ended.said[-3000:]
            hits += 1
        ended = runs.run([*arguments, "--store", str(killed)])
        assert ended.code == 0, ended.said[-3000:]
        for stage in TIMED:  # what was measured: found again only if everything else is made to the same bytes
            if (killed / stage).exists():
                shutil.copytree(killed / stage, alone / stage)
        straight = runs.run([*arguments, "--store", str(alone)])
        assert straight.code == 0, straight.said[-3000:]
        assert digests(killed, NOT_REPEATED) == digests(alone, NOT_REPEATED)
        assert engines_of(ended) == engines_of(straight)
        assert outcomes(killed) == outcomes(alone) != {}
    print(f"killed {hits} times in {stores} stores")


def engines_of(ended: Ended) -> dict[str, str]:
    """Return the sha256 of the engines by package, where they are built to the same bytes each time."""
    packages = json.loads(ended.said[ended.said.index("[\n  {") :])
    return {package["name"]: package["engine_sha256"] for package in packages if package["name"] not in ("tiny--tiny-rtx", "tiny--tiny-openvino")}


def outcomes(store: Path) -> dict[str, str]:
    """Return the sha256 of what each package's engine gave for the test images, whatever bytes it was built to."""
    return {f"{file.parent.name}/{file.name}": sha256_file(file) for name in OUTCOME for file in store.glob(f"packages/*/{name}")}


def kill_later(pid: int, seconds: float) -> None:
    """Kill a run after a while, if it is still there."""

    def kill() -> None:
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()


SAVES = ("save_file", "serialize_file", "write_text", "write_bytes")
ALL_OF_THEM = pytest.param(signal.SIGINT, 130, 10_000, marks=pytest.mark.long, id="SIGINT, all")


@pytest.mark.slow
@pytest.mark.parametrize(("by", "code", "most"), [(signal.SIGTERM, 143, 2), ALL_OF_THEM])
def test_stopped_before_a_save_a_run_says_so_in_a_line_and_goes_on(tmp_path: Path, runs: Runs, by: signal.Signals, code: int, most: int) -> None:
    store, done = tmp_path / "store", list[str]()
    while len(done) < most:
        ended = runs.run([*ONE, "--store", str(store)], done=done, by=by, turns=SAVES)
        if ended.code == 0:
            break
        require_quiet(ended)
        assert ended.code == code, ended.said[-3000:]
        assert "the same command goes on" in ended.said
        done.append(ended.died_at)
    assert len(done) >= min(most, 20)
    print(f"stopped before {len(done)} saves")
    assert runs.run([*ONE, "--store", str(store)]).code == 0
