"""One ssh process, and the agent of Bonsai that it started on the device."""

import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import Any, BinaryIO, cast

from bonsai.stages.backends.remote.build_mark import BuildMark, this_build
from bonsai.stages.backends.remote.frames import GREETING, ConnectionLost, Frame, PipeSink, PipeSource, receive, send
from bonsai.stages.backends.remote.refusals import no_ssh, other_version, refusal
from bonsai.stages.backends.remote.ssh import ssh_command
from bonsai.stages.interpreter import module_anywhere

AGENT = "bonsai.stages.backends.remote.agent"
GREETING_SECONDS = 120.0
"""Time until the agent must have spoken: a small board takes several seconds to import its packages."""
SILENT_SECONDS = 600.0
"""A connection from which nothing came for so long, no answer to a sign of life either, is taken for lost."""
BEAT_SECONDS = 10.0
"""Time between two signs of life. The agent ends where none came for `PATIENCE_SECONDS` of `agent.py`."""
NOISE = 1 << 16
"""Most bytes that a login script may print before the agent speaks."""


class Connection:
    """An agent that answers.

    Args:
        address: ``ssh://[user@]host[:port]``.
        python: Python on the device that has Bonsai.

    Raises:
        Unreachable: There is no agent, or one of another version.
    """

    def __init__(self, address: str, python: str) -> None:
        self._address = address
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`; a pipe could fill up, or be held open by a master that ssh leaves
        try:
            self._process = subprocess.Popen(
                ssh_command(address, [python, *module_anywhere(AGENT)]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, bufsize=0
            )
        except FileNotFoundError:
            self._words.close()
            raise no_ssh(address) from None
        self._writing, self._ended = threading.Lock(), threading.Event()
        try:
            self._require_same_build(self._greeting())
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._beat, name=f"signs of life for {address}", daemon=True).start()

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send one frame.

        Raises:
            ConnectionLost: Nobody reads it.
        """
        with self._writing:
            send(PipeSink(cast(BinaryIO, self._process.stdin)), header, body)

    def receive(self) -> Frame:
        """Return the next frame that is no sign of life.

        Raises:
            ConnectionLost: The device has gone, or said nothing for too long; with ssh's last words.
        """
        while True:
            try:
                frame = receive(self._source(SILENT_SECONDS))
            except ConnectionLost as lost:
                raise ConnectionLost(self._last_words() or str(lost)) from lost
            if "alive" not in frame.header:
                return frame

    def close(self) -> None:
        """End the connection; the agent ends with it."""
        self._ended.set()
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._words):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _greeting(self) -> BuildMark:
        """Return what the agent says of itself, behind what a login script printed.

        Raises:
            Unreachable: It did not speak.
        """
        timed, seen = self._source(GREETING_SECONDS), b""
        try:
            while not seen.endswith(GREETING) and len(seen) < NOISE:
                byte = timed.read(1)
                if not byte:
                    break
                seen += byte
            if seen.endswith(GREETING):
                return BuildMark.model_validate(receive(timed).header)
        except (ConnectionLost, TimeoutError):
            pass
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        raise refusal(self._address, f"{self._said()}\n{seen.decode(errors='replace')}", self._process.poll())

    def _source(self, seconds: float) -> PipeSource:
        return PipeSource(cast(BinaryIO, self._process.stdout), seconds)

    def _require_same_build(self, theirs: BuildMark) -> None:
        ours = this_build()
        if theirs != ours:
            raise other_version(self._address, theirs=str(theirs), ours=str(ours))

    def _said(self) -> str:
        self._words.seek(0)
        return self._words.read().decode(errors="replace")

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return next((line.strip() for line in reversed(self._said().splitlines()) if line.strip()), "")

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self.send({"alive": True})
            except ConnectionLost:
                return
