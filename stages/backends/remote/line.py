"""A line to a device: asks its agent, sends it the files that it lacks, and connects again where the connection is lost.

A request can be asked again without harm, so a lost connection costs no more than the request that was under way. BONSAI_DEVICE_WAIT says for how many
seconds a device that was lost is waited for.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from bonsai.profiles.errors import BonsaiError, ConfigError, describe
from bonsai.stages.backends.remote.answers import FILE
from bonsai.stages.backends.remote.connection import Connection
from bonsai.stages.backends.remote.files import Sent
from bonsai.stages.backends.remote.frames import CHUNK, ConnectionLost, Frame
from bonsai.stages.backends.remote.refusals import Unreachable, gone
from bonsai.stages.errors import DeviceUnavailable, TimingFailed, VerificationError
from bonsai.stages.hashing import sha256_of
from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.training.progress import report, say
from bonsai.stages.worker import ERRORS

WAIT_VARIABLE = "BONSAI_DEVICE_WAIT"
WAIT_SECONDS = 300.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
MOST_LOSSES = 5
"""Times that one request may lose the connection: one that ends the agent each time would do so for ever."""
SENDINGS = 3
"""Times that a file is sent which the device finds damaged."""
TOLD_SECONDS = 2.0
RAISED: dict[str, type[BonsaiError]] = {**ERRORS, TimingFailed.__name__: TimingFailed, VerificationError.__name__: VerificationError}


@dataclass(frozen=True)
class Request:
    """What is asked of an agent.

    Attributes:
        verb: One of `answers.VERBS`.
        arguments: What JSON can hold.
        files: Files of this machine that it needs, by their role; a `Sent` must be on the device already.
        body: Arrays.
    """

    verb: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path | Sent] = field(default_factory=dict)
    body: bytes = b""


class Answered(NamedTuple):
    """One answer."""

    value: Any
    body: bytes


class Line:
    """Asks the agent at an address; connects at the first request.

    Args:
        address: ``ssh://[user@]host[:port]``.
        python: Python on the device that has Bonsai.
    """

    def __init__(self, address: str, python: str) -> None:
        self.address, self._python = address, python
        self.holds = False
        self._turn = threading.RLock()
        self._numbers = count(1)
        self._connection: Connection | None = None
        self._losses = 0
        self._arrived: dict[str, int] = {}
        self._end: dict[str, Any] = {}

    def ask(self, request: Request) -> Answered:
        """Return the one answer to a request; ask again where the connection is lost.

        Raises:
            BonsaiError: What the device refused, with its own words.
            DeviceUnavailable: The device did not come back, or there is none.
        """
        while True:
            try:
                (answered,) = self.stream(request)
            except ConnectionLost as lost:
                self.recover(lost)
            else:
                return answered

    def stream(self, request: Request) -> Iterator[Answered]:
        """Yield answers as they come.

        Raises:
            ConnectionLost: The rest has to be asked again, after `recover`.
            BonsaiError: As for `ask`.
        """
        with self._turn:
            finished = False
            try:
                connection = self._connected()
                for answered in self._exchange(connection, request):
                    self._losses = 0
                    yield answered
                finished = True
            except (ConnectionLost, Unreachable):
                raise
            except BonsaiError:
                finished = True  # the agent's own refusal, after which it waits for the next request
                raise
            finally:
                if not finished:  # lost, or nobody wants the rest
                    self.close()

    def recover(self, lost: ConnectionLost) -> None:
        """Connect again, with growing pauses.

        Raises:
            DeviceUnavailable: The device did not come back in time, or one request has lost the connection too often.
        """
        with self._turn:
            self.close()
            self._losses += 1
            if self._losses >= MOST_LOSSES:
                self._losses = 0
                raise gone(self.address, str(lost), waited=0, tries=MOST_LOSSES)
            limit, started, pause = wait_seconds(), time.monotonic(), FIRST_PAUSE
            say(f"{self.address}: the connection was lost ({lost}); trying to connect again for {limit:.0f} s")
            while True:
                try:
                    self._connect()
                except (Unreachable, ConnectionLost) as error:
                    if isinstance(error, Unreachable) and error.lasting:
                        raise
                    waited, reason = time.monotonic() - started, str(error)
                    if waited + pause > limit:
                        raise gone(self.address, _given(reason), waited=waited) from error
                    time.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    say(f"{self.address}: connected again after {time.monotonic() - started:.0f} s; what was under way is asked again")
                    return

    def fetch(self, file: Sent, folder: Path) -> None:
        """Fetch a file from the device, from where it was cut off.

        Raises:
            VerificationError: What came is not what its hash says.
        """
        part = folder / f"{file.name}.part"
        part.write_bytes(b"")
        while True:
            request = Request("get", {"offset": part.stat().st_size}, {FILE: file})
            try:
                with part.open("ab") as stream:
                    for answered in self.stream(request):
                        stream.write(answered.body)
                break
            except ConnectionLost as lost:
                self.recover(lost)
        with part.open("rb") as whole:
            found = sha256_of(whole)
        if found != file.sha256:
            part.unlink()
            problem = f"{self.address}: {file.name} arrived damaged"
            raise VerificationError(describe(problem, given=f"sha256 {found}", allowed=file.sha256, fix="run the same again"))
        part.replace(folder / file.name)

    def release(self) -> None:
        """Give the device free; where the connection is lost it is free already."""
        with suppress(ConnectionLost):
            if self._connection is not None:
                list(self.stream(Request("release")))

    def close(self) -> None:
        """End the connection; the next request opens another."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _connected(self) -> Connection:
        return self._connection or self._connect()

    def _connect(self) -> Connection:
        """Open a connection, which holds the device where this line does."""
        connection = Connection(self.address, self._python)
        try:
            if self.holds:
                list(self._exchange(connection, Request("hold")))
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _exchange(self, connection: Connection, request: Request) -> Iterator[Answered]:
        files = {role: file if isinstance(file, Sent) else _described(file) for role, file in request.files.items()}
        asked = {"verb": request.verb, "arguments": dict(request.arguments), "files": {role: file.model_dump() for role, file in files.items()}}
        damage = ""
        for _ in range(SENDINGS + 1):
            number = next(self._numbers)
            connection.send({"number": number, **asked}, request.body)
            yield from self._answers(connection, number)
            end = self._end
            if "missing" in end:
                for role, file in files.items():
                    if file.sha256 in end["missing"]:
                        self._put(connection, request.files[role], file, end["missing"].pop(file.sha256), files)
            elif "damaged" in end:
                damage = end["damaged"]
                say(f"{self.address}: {damage}; it is sent again")
            else:
                return
        problem = f"{self.address}: a file of the request does not stay whole on the device"
        fix = "check the device's disk and memory"
        raise VerificationError(describe(problem, given=damage or "it is removed again and again", allowed="files that keep their hash", fix=fix))

    def _answers(self, connection: Connection, number: int) -> Iterator[Answered]:
        """Yield the answers with a request's number; `_end` is then what ended them."""
        while True:
            header, body = frame = connection.receive()
            if header.get("number") != number:
                raise ConnectionLost(f"an answer came to a question that was not asked: {_given(str(frame.header))}")
            if "told" in header:
                say(f"{self.address}: {header['told']}")
            elif "value" in header:
                yield Answered(header["value"], body)
            elif "error" in header:
                raise self._error(frame)
            else:
                self._end = header
                return

    def _error(self, frame: Frame) -> BonsaiError:
        kind, message = str(frame.header["error"]), str(frame.header["message"])
        if kind in RAISED:
            return RAISED[kind](f"on {self.address}: {message}")
        fix = "see to the device: its disk, its memory, the runtime that is installed there"
        return DeviceUnavailable(describe(f"{self.address}: the device could not do what was asked", given=message, allowed="an answer", fix=fix))

    def _put(self, connection: Connection, source: Path | Sent, file: Sent, offset: int, keep: Mapping[str, Sent]) -> None:
        """Send a file, from where an earlier transfer was cut off."""
        if isinstance(source, Sent):
            problem = f"{self.address}: the device has lost what it had built"
            raise DeviceUnavailable(
                describe(problem, given=file.name, allowed="a cache that keeps files", fix="free space on the device, and run the same again")
            )
        if offset > self._arrived.get(file.sha256, 0):
            self._arrived[file.sha256], self._losses = offset, 0
        number = next(self._numbers)
        files = {FILE: file, **{f"beside {role}": one for role, one in keep.items()}}
        connection.send({"number": number, "verb": "put", "arguments": {"offset": offset}, "files": {role: one.model_dump() for role, one in files.items()}})
        told = time.monotonic()
        with source.open("rb") as stream:
            stream.seek(offset)
            while True:
                part = stream.read(CHUNK)
                connection.send({"part": offset}, part)
                offset += len(part)
                if offset >= file.size or not part:
                    break
                if time.monotonic() - told > TOLD_SECONDS:
                    told = time.monotonic()
                    report(f"sending {file.name} to {self.address}", done=offset // 1000, total=file.size // 1000, unit="kB")
        list(self._answers(connection, number))


def wait_seconds() -> float:
    """Return for how long a device that was lost is waited for.

    Raises:
        ConfigError: The environment says no number.
    """
    text = os.environ.get(WAIT_VARIABLE)
    if not text:
        return WAIT_SECONDS
    with suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return seconds
    raise ConfigError(describe(f"{WAIT_VARIABLE} is no time", given=text, allowed="seconds, 0 or more", fix=f"for example {WAIT_VARIABLE}=600"))


def _described(file: Path) -> Sent:
    return Sent(name=file.name, sha256=sha256_file(file), size=file.stat().st_size)


def _given(message: str) -> str:
    """Return what a message says was found, in one line."""
    lines = message.splitlines()
    return next((line.partition("given:")[2].strip() for line in lines if line.strip().startswith("given:")), lines[0] if lines else "")
