"""What host and device send each other: frames of a JSON header and bytes, which are arrays (safetensors) or a part of a file.

send(stream, {"verb": "run"}, pack([images]))
header, body = receive(stream)
(images,) = unpack(body)
"""

import json
import struct
from collections.abc import Sequence
from select import select
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from bonsai.stages.store.tensor_files import in_rows

LENGTHS = struct.Struct(">4sIQ")
MAGIC = b"bons"
MOST_HEADER, MOST_BODY = 1 << 26, 1 << 31
"""Most bytes of a header and of a body. More is no frame."""
CHUNK = 1 << 18
"""Bytes of a file in one frame. What has arrived of a file is whole frames, so a lost connection costs at most this."""
MOST_AT_ONCE = 1 << 20
GREETING = b"\nbonsai device agent\n"
"""Comes before the first frame. A login script of the device may print something before it."""


class ConnectionLost(Exception):
    """The other end is gone, or what comes from it are no frames."""


class Frame(NamedTuple):
    """One message."""

    header: dict[str, Any]
    body: bytes


class Source(Protocol):
    """Where bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer only at the end."""
        ...


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> Any:
        """Write all of it."""
        ...


class PipeSource:
    """Reads from a pipe without a buffer, and waits only so long for the next bytes."""

    def __init__(self, stream: BinaryIO, seconds: float) -> None:
        self._stream, self._seconds = stream, seconds

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer only at the end.

        Raises:
            TimeoutError: None came for too long.
        """
        data = bytearray()
        while len(data) < size:
            if not select([self._stream], [], [], self._seconds)[0]:
                raise TimeoutError(f"nothing came for {self._seconds:g} s")
            part = self._stream.read(min(size - len(data), MOST_AT_ONCE))
            if not part:
                break
            data += part
        return bytes(data)


class PipeSink:
    """Writes all of what it is given: a pipe without a buffer may take less at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes, /) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) :]


def send(sink: Sink, header: dict[str, Any], body: bytes = b"") -> None:
    """Send one frame.

    Raises:
        ConnectionLost: Nobody reads any more.
    """
    text = json.dumps(header).encode()
    try:
        sink.write(LENGTHS.pack(MAGIC, len(text), len(body)) + text)
        sink.write(body)
    except (OSError, ValueError) as error:  # ValueError: closed here
        raise ConnectionLost(f"nothing can be sent ({error})") from error


def receive(source: Source) -> Frame:
    """Receive one frame.

    Raises:
        ConnectionLost: The stream ended, or what came is no frame.
    """
    magic, header_size, body_size = LENGTHS.unpack(_exactly(source, LENGTHS.size))
    if magic != MAGIC or header_size > MOST_HEADER or body_size > MOST_BODY:
        raise ConnectionLost(f"what came is no message: {magic!r}")
    header, body = _exactly(source, header_size), _exactly(source, body_size)
    try:
        found = json.loads(header)
    except ValueError as error:
        raise ConnectionLost(f"what came is no message: {error}") from error
    if not isinstance(found, dict):
        raise ConnectionLost("what came is no message: its header is no mapping")
    return Frame(found, body)


def pack(arrays: Sequence[np.ndarray]) -> bytes:
    """Return arrays as bytes, in their order."""
    return save(in_rows({str(place): array for place, array in enumerate(arrays)}))


def unpack(body: bytes) -> list[np.ndarray]:
    """Return what `pack` was given.

    Raises:
        ConnectionLost: The bytes are no arrays.
    """
    try:
        found = load(body)
        return [found[str(place)] for place in range(len(found))]
    except (SafetensorError, KeyError) as error:  # no arrays, of an unknown type, or with a number missing
        raise ConnectionLost(f"what came are no arrays: {error}") from error


def _exactly(source: Source, size: int) -> bytes:
    try:
        data = source.read(size)
    except (OSError, ValueError) as error:
        raise ConnectionLost(f"nothing comes any more ({error})") from error
    if len(data) < size:
        raise ConnectionLost("the other end has gone" if not data else "a message ended in its middle")
    return data
