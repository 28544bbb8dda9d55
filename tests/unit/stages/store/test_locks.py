"""Locks that end with their process."""

import subprocess
import sys
from pathlib import Path

import pytest

from bonsai.stages.store.locks import hold, is_held


def test_a_lock_is_held_inside_the_block_alone(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "a"
    with hold(file):
        assert is_held(file)
        with pytest.raises(BlockingIOError), hold(file):
            pass
    assert not is_held(file)


def test_a_lock_is_free_once_its_process_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from bonsai.stages.store.locks import hold\n"
        "with hold(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, cwd=Path(__file__).parents[4]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert is_held(tmp_path / "a")
        process.kill()
        process.wait()
    assert not is_held(tmp_path / "a")
