"""The system's ssh: its command line, without questions, and how a path is written for the shell of the device.

Keys, host keys, jump hosts and ports are those of the user's own ~/.ssh/config. The environment variable BONSAI_SSH is a command to use in place of
``ssh``, such as ``ssh -F other_config``.
"""

import os
import shlex
from collections.abc import Sequence

VARIABLE = "BONSAI_SSH"
CONNECT_SECONDS = 15
ALIVE_SECONDS, ALIVE_COUNT = 5, 4
"""Seconds between two questions whether the device is still there, and how many may stay without an answer."""
OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": CONNECT_SECONDS,
    "ServerAliveInterval": ALIVE_SECONDS,
    "ServerAliveCountMax": ALIVE_COUNT,
    "EscapeChar": "none",
    "ClearAllForwardings": "yes",
    "RequestTTY": "no",
}


def ssh_command(address: str, command: Sequence[str], **options: object) -> list[str]:
    """Return the command line that runs a command on the device.

    Args:
        address: ``ssh://[user@]host[:port]``.
        command: Words; the first may begin with ``~/``.
        options: Further options of ssh.
    """
    words = [f"-o{name}={value}" for name, value in {**OPTIONS, **options}.items()]
    return [*shlex.split(os.environ.get(VARIABLE) or "ssh"), *words, address, "--", f"exec {quoted(command)}"]


def quoted(command: Sequence[str]) -> str:
    """Return a command for the device's shell, in which ``~/`` still is the home folder."""
    return " ".join(f"~/{shlex.quote(word[2:])}" if word.startswith("~/") else shlex.quote(word) for word in command)
