"""One timing at a time per machine: a lock that ends with its process and passes to its children."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bonsai.stages.measurement import timing_lock
from bonsai.stages.measurement.timing_lock import hold_timing, inheritable, lock_file
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.locks import is_held
from bonsai.stages.store.store import Store, stage

ROOT = Path(__file__).parents[4]
HOLD = "import sys\nfrom bonsai.stages.measurement.timing_lock import hold_timing\nwith hold_timing(): print(flush=True); sys.stdin.read()"
"""A process that holds the lock until its standard input ends."""


class Nothing(Artifact):
    pass


@stage(version=1, timed=True)
def time_nothing(out_dir: Path) -> Nothing:
    assert is_held(lock_file())
    return Nothing(folder=out_dir)


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(timing_lock.VARIABLE, str(tmp_path / "machine" / "lock"))
    return tmp_path / "machine" / "lock"


def holder() -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_the_lock_is_held_inside_the_block_alone_and_can_be_given_to_children(own_lock: Path) -> None:
    with hold_timing():
        assert is_held(own_lock)
        assert len(inheritable()) == 1
    assert inheritable() == ()
    assert not is_held(own_lock)


def test_two_stores_of_a_machine_share_the_lock(tmp_path: Path, own_lock: Path) -> None:
    for name in ("a", "b"):
        Store(tmp_path / name).run(time_nothing)
    assert not is_held(own_lock)
    assert not (tmp_path / "a" / ".locks" / "timed").exists()


def test_who_waits_says_so_and_goes_on_once_the_holder_was_killed(caplog: pytest.LogCaptureFixture, own_lock: Path) -> None:
    caplog.set_level(logging.INFO, "bonsai")
    process = holder()
    threading.Timer(0.3, process.kill).start()
    with hold_timing():
        assert process.wait() != 0
    process.communicate()
    assert f"timing waits: another one is under way on this machine (it holds {own_lock})" in caplog.text


def test_a_child_that_has_the_descriptor_keeps_the_lock_when_its_parent_is_gone(own_lock: Path) -> None:
    code = (
        "import os, subprocess, sys\nfrom bonsai.stages.measurement.timing_lock import hold_timing, inheritable\n"
        "with hold_timing():\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'], pass_fds=inheritable())\n"
        "    print(child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, "-c", code], stdin=reading, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        os.close(reading)
        assert process.stdout is not None
        process.stdout.readline()
        process.wait()
        assert is_held(own_lock)
        os.close(writing)  # which ends the child
        process.stdout.read()
    with hold_timing():
        pass


def test_a_lock_of_another_user_needs_no_more_than_reading(own_lock: Path) -> None:
    own_lock.parent.mkdir()
    own_lock.touch(0o444)
    own_lock.chmod(0o444)
    with hold_timing():
        assert is_held(own_lock) if os.access(own_lock, os.W_OK) else True


def test_the_lock_of_all_users_can_be_read_by_all_whatever_the_umask(own_lock: Path) -> None:
    before = os.umask(0o077)
    try:
        with hold_timing():
            assert own_lock.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_a_link_in_its_place_is_not_followed_and_the_fallback_is_told(
    caplog: pytest.LogCaptureFixture, own_lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "bonsai")
    own_lock.parent.mkdir()
    own_lock.symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with hold_timing():
        assert is_held(tmp_path / f"bonsai-timing.lock.{os.getuid()}")
    assert not (tmp_path / "elsewhere").exists()
    assert "only your own timings are waited for" in caplog.text


def test_a_lock_whose_file_was_removed_while_it_was_waited_for_is_taken_anew(own_lock: Path) -> None:
    process = holder()
    own_lock.unlink()
    with hold_timing():  # on a new file: the old one has no name any more
        assert is_held(own_lock)
    end(process)


def test_the_file_does_not_depend_on_the_users_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(timing_lock.VARIABLE)
    before = lock_file()
    monkeypatch.setenv("TMPDIR", "/nowhere")
    assert lock_file() == before
