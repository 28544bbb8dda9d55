"""A shell on a device, for what has to be done before an agent can run there: one connection that all its commands share."""

import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bonsai.stages.backends.remote.refusals import no_ssh, refusal
from bonsai.stages.backends.remote.ssh import CONNECT_SECONDS, ssh_command

SOCKET = "c"
"""Name of the socket of the shared connection, in a folder that only its owner can read; short, since a socket's path is."""
LAST_LINES = 20


class Done(NamedTuple):
    """A command that ended.

    Attributes:
        output: Its standard output; standard error is among it where it was asked for line by line.
    """

    code: int
    output: str
    errors: str


class Shell:
    """Runs commands on a device, until its block ends; see `open_shell`.

    Args:
        address: ``ssh://[user@]host[:port]``.
        socket: Of the shared connection.
    """

    def __init__(self, address: str, socket: Path) -> None:
        self.address = address
        self._options = {"ControlMaster": "no", "ControlPath": socket}

    def run(self, command: Sequence[str], content: bytes | None = None) -> Done:
        """Run a command, which gets some bytes on its standard input, and return how it ended."""
        found = subprocess.run(self._command(command), input=content or b"", capture_output=True, check=False)
        return Done(found.returncode, found.stdout.decode(errors="replace"), found.stderr.decode(errors="replace"))

    def follow(self, command: Sequence[str], tell: Callable[[str], None]) -> Done:
        """Run a command and hand on each line that it writes; return how it ended, with the last lines."""
        with subprocess.Popen(self._command(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            lines: list[str] = []
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.decode(errors="replace").rstrip())
                tell(lines[-1])
        return Done(process.returncode, "\n".join(lines[-LAST_LINES:]), "")

    def script(self, text: str, *arguments: str) -> Done:
        """Run a script of the POSIX shell, whose ``$1`` and so on are the arguments."""
        return self.run(["sh", "-c", text, "sh", *arguments])

    def send(self, file: Path, place: str) -> None:
        """Write a file to a place on the device, by way of a part beside it.

        Raises:
            OSError: It could not be written.
        """
        done = self.run(["sh", "-c", 'cat > "$1.part" && mv "$1.part" "$1"', "sh", place], file.read_bytes())
        if done.code:
            raise OSError(f"{self.address}: {place} cannot be written: {done.errors.strip()}")

    def _command(self, command: Sequence[str]) -> list[str]:
        return ssh_command(self.address, command, **self._options)


@contextmanager
def open_shell(address: str) -> Iterator[Shell]:
    """Connect to a device while the block runs.

    Raises:
        DeviceUnavailable: Nobody answers there, or lets nobody in.
    """
    with tempfile.TemporaryDirectory(prefix="bonsai-") as folder, tempfile.TemporaryFile() as words:
        shell = Shell(address, Path(folder) / SOCKET)
        command = ssh_command(address, [], ControlMaster="yes", ControlPath=Path(folder) / SOCKET)
        *options, place, _, _ = command
        try:
            master = subprocess.Popen([*options, "-N", place], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words)
        except FileNotFoundError:
            raise no_ssh(address) from None
        try:
            _await(master, shell, [*options, "-O", "check", place], words.fileno())
            yield shell
        finally:
            master.terminate()
            master.wait()


def _await(master: "subprocess.Popen[bytes]", shell: Shell, check: list[str], words: int) -> None:
    """Wait until the shared connection stands."""
    until = time.monotonic() + 2 * CONNECT_SECONDS
    while time.monotonic() < until and master.poll() is None:
        if subprocess.run(check, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
    master.terminate()
    master.wait()
    with open(words, "rb", closefd=False) as said:  # a descriptor, not a path
        said.seek(0)
        raise refusal(shell.address, said.read().decode(errors="replace"), master.returncode)


def in_shell(words: Sequence[str]) -> str:
    """Return words as people type them."""
    return shlex.join(words)
