"""What went wrong with a device, in one message: ssh's own last words, put into the words of the problem and of what to do."""

import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from bonsai.profiles.errors import describe
from bonsai.stages.errors import DeviceUnavailable

NO_COMMAND = 127
"""Exit code of a shell that does not find its command."""


class Unreachable(DeviceUnavailable):
    """There is no agent at the address.

    Args:
        message: The whole message.
        lasting: Whether another try a moment later would end in the same way.
    """

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


class Known(NamedTuple):
    """A kind of failure.

    Attributes:
        words: What ssh, the shell or Python say of it.
        problem: What is wrong.
        allowed: What would be right.
        fix: What to do; `{address}` stands for the device's.
        lasting: Whether another try would not help.
    """

    words: tuple[str, ...]
    problem: str
    allowed: str
    fix: str
    lasting: bool = True


SETUP = "`bonsai device setup {address}`"
KNOWN = (
    Known(
        ("REMOTE HOST IDENTIFICATION HAS CHANGED", "Offending "),
        "the device has another host key than the one that ssh knows",
        "the key in your known_hosts",
        "find out why: another machine may answer in its place. If the device was installed anew, `ssh-keygen -R HOST`",
    ),
    Known(
        ("Host key verification failed", "key is known for"),
        "ssh does not know the device's host key",
        "a host key in your known_hosts",
        "connect once by hand, `ssh {target}`, and compare the fingerprint that it shows",
    ),
    Known(
        ("No module named", "ModuleNotFoundError", "ImportError"),
        "Bonsai, or something that it needs, is not installed there",
        "Bonsai's plain install, of this version",
        SETUP,
    ),
    Known(
        ("No such file or directory", "not found", "cannot execute", "Exec format error", "No such file"),
        "there is no such Python on the device",
        "a Python that has Bonsai: `target.device.python`",
        f"{SETUP}, or name the right one",
    ),
    Known(
        ("Permission denied", "Too many authentication failures", "No supported authentication"),
        "the device lets nobody in with your keys; passwords are not asked for",
        "a login by key, without a question",
        "`ssh-copy-id {target}`, or start an ssh-agent that has the key",
        lasting=False,  # a machine that is starting up refuses users for a while
    ),
    Known(
        ("Could not resolve hostname", "Name or service not known"),
        "no machine has this name",
        "a name that resolves, or one of your ~/.ssh/config",
        "check the name and the network",
        lasting=False,
    ),
    Known(
        (
            "Connection refused",
            "No route to host",
            "timed out",
            "Network is unreachable",
            "Connection reset",
            "closed by remote host",
            "Connection closed",
            "Broken pipe",
            "not responding",
            "kex_exchange_identification",
        ),
        "the device does not answer",
        "a device that is on, in reach, and runs an ssh server",
        "switch it on, and check the address and the network",
        lasting=False,
    ),
)


def refusal(address: str, words: str, code: int | None) -> Unreachable:
    """Return the error for a connection that ended before the agent spoke.

    Args:
        address: The device's.
        words: What was written to standard error.
        code: Exit code of ssh; None where it still ran and was ended.
    """
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    for kind in KNOWN:
        if said := next((line for line in lines if any(word in line for word in kind.words)), None):
            return _unreachable(address, kind, said)
    ending = "it did not answer in time" if code is None else f"ssh ended with code {code}"
    unknown = Known((), "the device does not answer", "an agent of Bonsai that answers", f"try `ssh {{target}}` by hand, then {SETUP}", lasting=False)
    return _unreachable(address, unknown, f"{ending}: {lines[-1]}" if lines else ending)


def no_ssh(address: str) -> Unreachable:
    """Return the error for a host without OpenSSH."""
    problem = f"{address}: OpenSSH's client is not installed on this machine"
    return Unreachable(
        describe(problem, given="no command ssh", allowed="OpenSSH's ssh", fix="install it: apt install openssh-client, or as your system has it"), lasting=True
    )


def other_version(address: str, *, theirs: str, ours: str) -> Unreachable:
    """Return the error for a device whose Bonsai is another one than the host's."""
    problem = f"{address}: Bonsai on the device is not the one that runs here, so it may measure in another way"
    fix = SETUP.format(address=address)
    return Unreachable(describe(problem, given=theirs, allowed=ours, fix=fix), lasting=True)


def gone(address: str, reason: str, *, waited: float, tries: int = 0) -> DeviceUnavailable:
    """Return the error for a device that was lost and did not come back.

    Args:
        address: The device's.
        reason: What was heard last.
        waited: Seconds that it was waited for.
        tries: How often one and the same request lost the connection; 0 where the device did not come back.
    """
    if tries:
        problem, given = f"{address}: the connection was lost {tries} times during one request", reason
    else:
        problem, given = f"{address}: the connection was lost and the device did not come back", f"{reason}; waited {waited:.0f} s"
    fix = f"see to the device, then go on: {command_again()}. What is measured is kept (BONSAI_DEVICE_WAIT: seconds to wait)"
    return DeviceUnavailable(describe(problem, given=given, allowed="a device that answers", fix=fix))


def command_again() -> str:
    """Return the command that this process was started with, or how to repeat what is no command."""
    program = Path(sys.argv[0])
    is_ours = program.name == "bonsai" or (program.name == "__main__.py" and program.parent.name == "bonsai") or program.parts[-2:] == ("cli", "main.py")
    return f"`{shlex.join(['bonsai', *sys.argv[1:]])}`" if is_ours else "run the same again"


def target_of(address: str) -> str:
    """Return an address as people write it behind `ssh`."""
    return address if ":" in address.removeprefix("ssh://") else address.removeprefix("ssh://")


def _unreachable(address: str, kind: Known, said: str) -> Unreachable:
    fix = kind.fix.format(address=address, target=target_of(address))
    return Unreachable(describe(f"{address}: {kind.problem}", given=said, allowed=kind.allowed, fix=fix), lasting=kind.lasting)
