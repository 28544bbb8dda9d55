import errno
import time
from pathlib import Path

import pytest

from bonsai.stages.errors import BuildError, DeviceUnavailable
from bonsai.stages.worker import call


def test_calls_are_made_in_one_other_process() -> None:
    ours = Path("/proc/self").resolve().name
    found = {call("misbehaving:process", {}, doing="asking", seconds=60) for _ in range(2)}
    assert len(found) == 1
    assert found != {int(ours)}
    assert call("misbehaving:double", {"number": 21}, doing="doubling", seconds=60) == 42


@pytest.mark.parametrize(
    ("function", "arguments", "told"),
    [
        ("end_by", {"name": "SIGSEGV"}, "opening x.onnx ended its process: SIGSEGV"),
        ("end_by", {"name": "SIGKILL"}, "ended its process: SIGKILL, as Linux does where memory runs out"),
        ("leave", {"code": 7}, "ended its process: code 7, out of luck"),
    ],
)
def test_a_call_that_ends_its_process_is_told_and_the_next_one_is_made_in_another(function: str, arguments: dict[str, object], told: str) -> None:
    with pytest.raises(BuildError, match=told):
        call(f"misbehaving:{function}", arguments, doing="opening x.onnx", seconds=60)
    assert call("misbehaving:double", {"number": 4}, doing="doubling", seconds=60) == 8


def test_a_call_that_hangs_is_ended() -> None:
    call("misbehaving:double", {"number": 1}, doing="starting", seconds=60)
    started = time.monotonic()
    with pytest.raises(BuildError, match=r"opening x\.onnx took more than 0\.2 s; the process that did it was ended"):
        call("misbehaving:hang", {}, doing="opening x.onnx", seconds=0.2)
    assert time.monotonic() - started < 30
    assert call("misbehaving:double", {"number": 4}, doing="doubling", seconds=60) == 8


@pytest.mark.parametrize(("kind", "raised", "told"), [("BuildError", BuildError, "^no such"), ("DeviceUnavailable", DeviceUnavailable, "^no such")])
def test_an_error_of_ours_keeps_its_kind(kind: str, raised: type[Exception], told: str) -> None:
    with pytest.raises(raised, match=told):
        call("misbehaving:refuse", {"kind": kind}, doing="refusing", seconds=60)


def test_any_other_error_is_told_with_its_kind() -> None:
    with pytest.raises(BuildError, match="KeyError: 'no such kernel'"):
        call("misbehaving:refuse", {"kind": "KeyError"}, doing="refusing", seconds=60)


def test_the_process_is_the_first_that_linux_ends_where_memory_runs_out() -> None:
    number = call("misbehaving:process", {}, doing="asking", seconds=60)
    assert Path(f"/proc/{number}/oom_score_adj").read_text().strip() == "1000"


def test_a_full_disk_and_a_lack_of_memory_are_told_as_what_they_are() -> None:
    with pytest.raises(OSError, match=r"No space left on device: 'engine\.onnx'") as full:
        call("misbehaving:fill", {"number": errno.ENOSPC}, doing="building", seconds=60)
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(MemoryError, match="building"):
        call("misbehaving:take_all_memory", {}, doing="building", seconds=60)
    with pytest.raises(BuildError, match="FileNotFoundError"):  # a fault of the call's own
        call("misbehaving:fill", {"number": errno.ENOENT}, doing="building", seconds=60)
