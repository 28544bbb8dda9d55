"""An engine alone in a process: memory from folders like /proc that the tests write, and from a process of its own."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bonsai.stages.backends.alone import figures_of, open_alone
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.timing_records import Alone, Untold

BATCH = np.zeros((1, 3), np.float32)
ENGINE = """
import sys
from pathlib import Path
import numpy as np
from bonsai.stages.backends.alone import figures_of, open_alone

def load():
    weights = np.ones(50_000_000, np.uint8)
    return lambda batch: batch + weights[0]

batch = np.zeros((1, 3), np.float32)
print(figures_of(open_alone(load, batch), load, batch, start_s=0, kind="cpu", root=Path(sys.argv[1])).engine_bytes)
"""
"""Loads an engine that holds 50 MB, and prints what it took."""


def test_memory_is_the_peak_above_what_the_process_had_before(tmp_path: Path) -> None:
    status, held = tmp_path / "status", list[np.ndarray]()

    def load() -> Run:
        status.write_text(f"Name:\tpython\nVmHWM:\t{70_000 + 9_000 * len(held)} kB\nVmRSS:\t60000 kB\n")
        held.append(BATCH)
        return lambda batch: batch

    status.write_text("VmHWM:\t64000 kB\nVmRSS:\t50000 kB\n")
    opened = open_alone(load, BATCH, proc=tmp_path)
    assert (tmp_path / "clear_refs").read_text() == "5", "an earlier peak does not count"
    found = figures_of(opened, load, BATCH, start_s=0.5, kind="cpu", root=tmp_path, proc=tmp_path)
    assert (found.before_bytes, found.peak_bytes) == (50_000 * 1024, 70_000 * 1024), "the second load does not count"
    assert found.engine_bytes == 20_000 * 1024
    assert isinstance(found.energy, Untold)


def test_a_system_that_does_not_tell_its_memory_gives_none(tmp_path: Path) -> None:
    opened = open_alone(lambda: lambda batch: batch, BATCH, proc=tmp_path / "none")
    found = figures_of(opened, lambda: lambda batch: batch, BATCH, start_s=0.5, kind="cpu", root=tmp_path, proc=tmp_path / "none")
    assert (found.before_bytes, found.peak_bytes, found.engine_bytes) == (None, None, None)


def test_start_is_told_part_by_part(tmp_path: Path) -> None:
    def load() -> Run:
        time.sleep(0.05)
        return lambda batch: time.sleep(0.02) or batch

    found = figures_of(open_alone(load, BATCH, proc=tmp_path), load, BATCH, start_s=0.5, kind="cpu", root=tmp_path, proc=tmp_path)
    assert 0.05 <= found.load_s < 0.2
    assert 0.02 <= found.first_s < 0.2
    assert 0.07 <= found.warm_s < 0.3
    assert found.cold_s == 0.5 + found.load_s + found.first_s
    assert Alone.model_validate_json(found.model_dump_json()) == found


def test_a_process_of_its_own_tells_what_an_engine_of_50_megabytes_takes(tmp_path: Path) -> None:
    # not in the process of the tests: it may hold free memory of earlier tests, and an engine that gets some of that adds nothing
    done = subprocess.run([sys.executable, "-c", ENGINE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert 49e6 < int(done.stdout) < 70e6
