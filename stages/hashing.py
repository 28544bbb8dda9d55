"""The sha256 of a file; Python 3.10 has no `hashlib.file_digest`."""

import hashlib
from typing import BinaryIO

CHUNK = 1 << 18


def sha256_of(stream: BinaryIO) -> str:
    """Return the hexadecimal sha256 of what is left to read of a file."""
    digest, chunk = hashlib.sha256(), memoryview(bytearray(CHUNK))
    while size := stream.readinto(chunk):  # type: ignore[attr-defined]  # files that are opened to be read in binary have it
        digest.update(chunk[:size])
    return digest.hexdigest()
