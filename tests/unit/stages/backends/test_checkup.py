"""What `bonsai device check` tells of a device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bonsai.profiles.errors import BonsaiError
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.checking_up import check_up
from bonsai.stages.backends.checkup import Checkup
from bonsai.stages.backends.devices import require_there
from bonsai.stages.backends.machine import Machine, read_cpu
from bonsai.stages.backends.timing_records import Condition
from bonsai.stages.errors import DeviceUnavailable

BOARD = Machine(system="Linux", architecture="aarch64", cpu="Raspberry Pi 5", isa=("asimd", "asimddp"), cores=4)
HOT = Condition(
    governor="ondemand", clock_mhz=1500.2, limit_mhz=2000, most_mhz=2400, temperature_c=81.6, throttling=("throttled",), throttled={"under-voltage": 1, "x": 0}
)


def a_checkup(**facts: object) -> Checkup:
    base = {"machine": BOARD, "usable_cores": 3, "condition": HOT, "memory_bytes": 8 * 2**30, "free_bytes": 6 * 2**30, "python": "3.11.2"}
    return Checkup.model_validate({**base, "installed": {"bonsai-compress": "0.1.0", "onnxruntime": "1.32.0"}, "round_trip_ms": 28.31, **facts})


def test_every_subject_is_told() -> None:
    assert dict(a_checkup().rows) == {
        "processor": "Raspberry Pi 5",
        "instruction sets": "asimd, asimddp",
        "cores": "4, of which 3 can be used",
        "system": "Linux aarch64, Python 3.11.2",
        "governor": "ondemand",
        "clock": "1500 MHz of 2000; the CPU could run at 2400 MHz",
        "temperature": "82 °C",
        "throttling": "throttled; since its start: under-voltage",
        "memory": "8.0 GiB, 6.0 GiB free",
        "installed": "bonsai-compress 0.1.0, onnxruntime 1.32.0",
        "round trip": "28.3 ms",
    }


def test_what_the_system_does_not_tell_is_called_so() -> None:
    rows = dict(a_checkup(condition=Condition(), memory_bytes=None, free_bytes=None, round_trip_ms=None).rows)
    assert {rows[subject] for subject in ("governor", "clock", "temperature", "memory")} == {"not told by the system"}
    assert rows["throttling"] == "none now; the system counts no earlier one"
    assert rows["round trip"] == "none: it is this machine"


def test_an_emulated_machine_is_called_so() -> None:
    assert (
        dict(a_checkup(emulated="the kernel has no ptrace").rows)["EMULATED"]
        == "the kernel has no ptrace: results can be checked here, and no time is measured"
    )


def test_this_machine_tells_what_it_is() -> None:
    found = check_up()
    assert (found.machine.cpu, found.machine.isa) == read_cpu()
    assert 1 <= found.usable_cores <= found.machine.cores == os.cpu_count()
    assert {"bonsai-compress", "onnxruntime"} <= set(found.installed)
    assert found.memory_bytes is not None and found.free_bytes is not None
    assert 0 < found.free_bytes < found.memory_bytes
    assert Checkup.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("profile", "error"), [("cortex-a76", DeviceUnavailable), ("rtx-4090", BonsaiError)])
def test_a_device_that_is_elsewhere_is_not_this_machine(profile: str, error: type[BonsaiError]) -> None:
    with pytest.raises(error, match=r"nothing says where its device is|is not installed"):
        require_there(load_profile(profile))
    require_there(load_profile("local-cpu"))


def test_the_command_prints_the_table_and_the_profiles_runtime() -> None:
    done = subprocess.run([sys.executable, "-m", "bonsai", "device", "check", "local-cpu"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{'processor':18}{read_cpu()[0]}"
    assert lines[-1].startswith(f"{'profile':18}local-cpu: onnxruntime 1.")


def test_a_runtime_that_the_profile_does_not_allow_is_told_below_the_table(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text('extends: local-cpu\nname: old\ntarget: {runtime_version: "<1"}\n')
    command = [sys.executable, "-m", "bonsai", "device", "check", str(tmp_path / "old.yaml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert json.loads(done.stdout)["machine"]["cpu"] == read_cpu()[0]
    assert "a version that the profile does not allow" in done.stderr
