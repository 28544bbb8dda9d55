"""An emulated machine is told, and no time is measured on it."""

import errno
from pathlib import Path

import numpy as np
import pytest

from bonsai.profiles.loader import load_profile
from bonsai.profiles.operator_class import OperatorClass
from bonsai.stages.backends import emulation
from bonsai.stages.backends.device import OperatorPoint, TimingProtocol
from bonsai.stages.backends.emulation import emulated, sign_of
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.local_device import local
from bonsai.stages.backends.machine import read_cpu
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.errors import DeviceUnavailable

PI = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
XEON = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R)\nflags\t\t: avx2\n"
TARGET = load_profile("local-cpu").target
SIGN = "the aarch64 kernel has no ptrace"


@pytest.fixture
def under_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "emulated", lambda: SIGN)


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "refusal", "sign"),
    [
        ("aarch64", PI, errno.ESRCH, ""),
        ("aarch64", PI, errno.EPERM, ""),  # a container may forbid the call
        ("aarch64", "", errno.ESRCH, ""),  # a root without /proc
        ("x86_64", XEON, errno.ESRCH, ""),
        ("aarch64", "", errno.ENOSYS, "the aarch64 kernel has no ptrace"),
        ("aarch64", XEON, errno.ESRCH, "the system is aarch64, and its CPU has the field 'vendor_id'"),
        ("x86_64", PI, errno.ESRCH, "the system is x86_64, and its CPU has the field 'CPU implementer'"),
        ("x86_64", XEON.replace("Intel(R) Xeon(R)", "QEMU TCG CPU version 2.5+"), errno.ESRCH, "the CPU is called 'QEMU TCG CPU'"),
    ],
)
def test_an_emulator_is_known_by_its_signs(machine: str, cpuinfo: str, refusal: int, sign: str) -> None:
    assert sign_of(machine, cpuinfo, refusal) == sign


def test_this_machine_is_none() -> None:
    assert emulated() == ""
    assert "emulated" not in read_cpu()[0]


def test_the_name_of_an_emulated_cpu_says_so(under_an_emulator: None) -> None:
    assert read_cpu()[0].endswith(" (emulated)")


@pytest.mark.usefixtures("under_an_emulator")
@pytest.mark.parametrize("verb", ["time", "operators", "kernels", "dissect"])
def test_no_time_is_measured_under_an_emulator(verb: str) -> None:
    engine, images = EngineFile(file=Path("engine.onnx"), target=TARGET), np.zeros((1, 1, 8, 8), np.float32)
    calls = {
        "time": lambda: local.time({"engine": engine}, {"engine": images}, TimingProtocol(timing=TimingConfig(), clock="wall", percentile=50)),
        "operators": lambda: list(local.operators([OperatorPoint(OperatorClass(op="linear"), 8, 8)], TARGET)),
        "kernels": lambda: local.kernels(engine, images),
        "dissect": lambda: local.dissect(engine, images),
    }
    with pytest.raises(DeviceUnavailable, match=r"(?s)no time is measured here, because this machine is emulated.*kernel has no ptrace.*bonsai verify"):
        calls[verb]()
