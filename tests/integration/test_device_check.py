"""`bonsai device check` of a device that is far away."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from far_device import DELAY, Far, far_device

from bonsai.stages.backends.machine import read_cpu

pytestmark = pytest.mark.slow  # a real sshd, and processes behind it

PROFILE = 'extends: {parent}\nname: far\ntarget: {{device: {{address: "{address}", python: "{python}"}}}}\n'


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with far_device(tmp_path_factory.mktemp("far")) as far:
        yield far


def check(folder: Path, far: Far, *options: str, parent: str = "local-cpu", address: str = "") -> subprocess.CompletedProcess[str]:
    """Check the device of a profile with an address; the far one's unless another is given."""
    profile = folder / "far.yaml"
    profile.write_text(PROFILE.format(parent=parent, address=address or far.address, python=far.python))
    command = [sys.executable, "-m", "bonsai", "device", "check", str(profile), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "BONSAI_DEVICE_WAIT": "1"})


def test_the_far_device_tells_what_it_is_and_how_long_an_answer_takes(far: Far, tmp_path: Path) -> None:
    done = check(tmp_path, far, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["machine"]["cpu"], found["machine"]["isa"]) == (read_cpu()[0], list(read_cpu()[1]))
    assert "onnxruntime" in found["installed"]
    assert found["round_trip_ms"] >= 2e3 * DELAY


def test_a_machine_that_is_not_the_profiles_device_is_shown_and_then_refused(far: Far, tmp_path: Path) -> None:
    done = check(tmp_path, far, parent="cortex-a76")
    assert done.returncode == 5
    assert done.stdout.startswith(f"{'processor':18}{read_cpu()[0]}\n")
    assert "the machine there is not the profile's device" in done.stderr


def test_a_device_that_does_not_answer_ends_with_code_5(far: Far, tmp_path: Path) -> None:
    done = check(tmp_path, far, address="ssh://127.0.0.1:1")
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
