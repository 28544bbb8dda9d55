"""A machine that gives too little: a full or read-only disk, files that may not grow, memory that ends, many runs at once, long runs."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked import Runs
from test_reliability_kills import CONFIGS, ONE, digests, require_quiet, runs

from bonsai.stages.store.store import WORK

__all__ = ["runs"]  # the fixture
MOUNTS = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0 if Path("/usr/bin/unshare").exists() else False
RUN = [sys.executable, "-m", "bonsai", *ONE]


@contextmanager
def small_disk(folder: Path, kilobytes: int, options: str = "rw") -> Iterator[Path]:
    """Mount a disk in memory of this size."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,{options}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.long
@pytest.mark.skipif(not MOUNTS or os.getuid() != 0, reason="only root mounts a small disk")
@pytest.mark.parametrize("kilobytes", [20, 100, 300, 1000, 2000, 3000, 5000])
def test_a_full_disk_ends_in_one_message_and_the_run_goes_on_where_there_is_room(tmp_path: Path, runs: Runs, kilobytes: int) -> None:
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        ended = runs.run([*ONE, "--store", str(disk / "store")])
        require_quiet(ended)
        assert ended.code == 1, ended.said[-3000:]
        assert "the disk is full" in ended.said
        assert ended.said.count("error: ") == 1
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert runs.run([*ONE, "--store", str(disk / "store")]).code == 0
        alone = tmp_path / "alone"
        assert runs.run([*ONE, "--store", str(alone)]).code == 0
        assert digests(disk / "store", ("package",)) == digests(alone, ("package",))


@pytest.mark.long
@pytest.mark.skipif(not MOUNTS or os.getuid() != 0, reason="only root mounts a disk")
def test_a_read_only_store_is_refused_in_one_message(tmp_path: Path, runs: Runs) -> None:
    with small_disk(tmp_path / "disk", 1000, "ro") as disk:
        ended = runs.run([*ONE, "--store", str(disk / "store")])
        require_quiet(ended)
        assert ended.code == 2  # said of --store before anything is trained
        assert "Read-only file system" in ended.said


@pytest.mark.parametrize("kilobytes", [60, *(pytest.param(size, marks=pytest.mark.long) for size in (1, 10, 30, 100, 200))])
def test_files_that_may_not_grow_end_in_one_message(tmp_path: Path, runs: Runs, kilobytes: int) -> None:
    store = tmp_path / "store"
    ended = runs.run([*ONE, "--store", str(store)], limits={"FSIZE": kilobytes * 1000})
    require_quiet(ended)
    assert ended.code == 1, ended.said[-3000:]
    assert "larger than this process may write" in ended.said
    digests(store)  # nothing is half-made under a final name
    assert runs.run([*ONE, "--store", str(store)]).code == 0


@pytest.mark.long
@pytest.mark.parametrize("megabytes", [50, 100, 200, 400])
def test_memory_that_ends_is_one_message(tmp_path: Path, megabytes: int) -> None:
    store = tmp_path / "store"
    with Runs(tmp_path) as runs:
        held: list[int] = []
        first = runs.run(["list", "recipes"], meanwhile=lambda pid: held.append(_memory_of(pid)))
        assert first.code == 0
        ended = runs.run([*ONE, "--store", str(store)], limits={"DATA": held[0] + megabytes * 1_000_000})
        require_quiet(ended)
        assert ended.code in (0, 1), ended.said[-3000:]
        assert ended.code == 0 or ended.said.count("error: there is not enough memory") == 1, ended.said[-3000:]
        assert runs.run([*ONE, "--store", str(store)]).code == 0


def _memory_of(pid: int) -> int:
    """Return the bytes of private memory of a process."""
    found = re.search(r"VmData:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


@pytest.mark.long
def test_six_runs_at_once_make_each_artifact_once_and_the_same(tmp_path: Path) -> None:
    store, alone = tmp_path / "store", tmp_path / "alone"
    other = ["--set", "training.seed=1"]
    asked = [RUN, RUN, [*RUN, *other], [*RUN, *other], [*RUN, "--profile", str(CONFIGS / "tiny-narrow.yaml")], RUN]
    started = [subprocess.Popen([*command, "--store", str(store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in asked]
    time.sleep(12)
    started[0].send_signal(signal.SIGKILL)  # whatever it holds, the others go on
    started[0].communicate()
    for process in started[1:]:
        said, errors = process.communicate(timeout=1500)
        assert process.returncode == 0, errors[-3000:]
        assert "Traceback" not in errors
        assert json.loads(said)
    for command in (RUN, [*RUN, *other], asked[4]):
        subprocess.run([*command, "--store", str(alone)], capture_output=True, check=True)
    assert digests(store, ("package",)) == digests(alone, ("package",))
    assert [left for left in (store / WORK).glob("*") if left.is_dir()] == []


@pytest.mark.long
def test_three_hundred_segments_take_flat_memory_and_open_files(tmp_path: Path, runs: Runs) -> None:
    memory, files = list[int](), list[int]()

    def watch(pid: int) -> None:
        def look() -> None:
            try:
                while True:
                    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
                    if found is None:
                        return
                    memory.append(int(found.group(1)))
                    files.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
                    time.sleep(0.2)
            except (FileNotFoundError, ProcessLookupError):
                return

        threading.Thread(target=look, daemon=True).start()

    every = ["--set", "training.epochs=20", "--set", "prune.epi={every: 0.0033, latest: 0.99, window: 3}"]
    ended = runs.run([*ONE, "--store", str(tmp_path / "store"), *every, "--set", "prune.policy={name: epoch, epoch: 19.9}"], meanwhile=watch)
    assert ended.code == 0, ended.said[-3000:]
    segments = len(list((tmp_path / "store" / "train_dense").iterdir()))
    assert segments >= 300
    quarter = len(memory) // 4
    early, late = sorted(memory[quarter : 2 * quarter])[quarter // 2], sorted(memory[3 * quarter :])[quarter // 2]
    assert late < 1.1 * early
    assert sorted(files[3 * quarter :])[quarter // 2] <= sorted(files[quarter : 2 * quarter])[quarter // 2] + 2


@pytest.mark.parametrize("command", [["list", "profiles"], pytest.param(RUN[3:], marks=pytest.mark.long)])
def test_a_reader_that_has_gone_ends_a_command_quietly(tmp_path: Path, command: list[str]) -> None:
    arguments = [*command, "--store", str(tmp_path / "store")] if "run" in command else command
    with subprocess.Popen([sys.executable, "-m", "bonsai", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode in (0, 141)
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
