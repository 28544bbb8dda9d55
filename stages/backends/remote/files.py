"""Files on the device by their sha256: each is sent once, a transfer that was cut off goes on, and no file is used unless its hash is right.

The cache is ``~/.cache/bonsai-device``, or the folder that the environment variable BONSAI_DEVICE_CACHE names on the device. Above its limit, the files
that were used longest ago are removed.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from bonsai.profiles.located_yaml import Record
from bonsai.stages.hashing import sha256_of

VARIABLE, LIMIT_VARIABLE = "BONSAI_DEVICE_CACHE", "BONSAI_DEVICE_CACHE_MB"
LIMIT_MB = 4096
"""Size of the cache in megabytes (10^6 bytes) above which old files are removed; BONSAI_DEVICE_CACHE_MB on the device changes it."""
PART = ".part"
FORGOTTEN_SECONDS = 86400
"""Age of a work folder that an agent left behind when it was killed."""


def _plain(name: str) -> str:
    """Return a name that leads out of no folder."""
    if Path(name).name != name or name in {"", ".."} or name.endswith(PART):
        raise ValueError("no name of a file")
    return name


class Sent(Record):
    """A file as the other end knows it; neither end writes anywhere else because of what the other says.

    Attributes:
        name: Name of the file, without a folder.
        sha256: Of its content.
        size: Bytes.
    """

    name: Annotated[str, AfterValidator(_plain)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: int


class DamagedFile(Exception):
    """What arrived, or what lay in the cache, is not what its hash says. It is removed."""


class Files:
    """The cache of a device.

    Args:
        root: Is made where it is missing.
        limit_bytes: Size above which old files are removed.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._folder, self._work, self._limit = root / "files", root / "work", limit_bytes
        for folder in (self._folder, self._work):
            folder.mkdir(parents=True, exist_ok=True)

    def work_folder(self) -> tempfile.TemporaryDirectory[str]:
        """Return a folder on the disk of the cache; those that killed agents left are removed."""
        for folder in self._work.iterdir():
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > FORGOTTEN_SECONDS:
                    shutil.rmtree(folder)
        return tempfile.TemporaryDirectory(dir=self._work)

    def missing(self, files: Collection[Sent]) -> dict[str, int]:
        """Return the files that are not here, by hash, with the number of their bytes that are."""
        return {file.sha256: self.received(file) for file in files if not self._place(file).is_file()}

    def received(self, file: Sent) -> int:
        """Return how many bytes of a file that is under way have arrived."""
        with suppress(FileNotFoundError):
            return self._part(file).stat().st_size
        return 0

    def append(self, file: Sent, offset: int, data: bytes) -> None:
        """Write a part of a file where it belongs; the last part finishes it.

        Raises:
            DamagedFile: The whole is not what its hash says.
            ConnectionError: The part does not follow what is here.
        """
        part = self._part(file)
        part.parent.mkdir(exist_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            if offset > os.fstat(descriptor).st_size or offset + len(data) > file.size:
                raise ConnectionError(f"{file.name}: a part of the file is missing")
            stream.seek(offset)
            stream.write(data)
        if offset + len(data) == file.size:
            self._finish(part, file)

    def take(self, built: Path) -> Sent:
        """Move a file that was made here into the cache, and return it."""
        file = sent(built)
        self._place(file).parent.mkdir(exist_ok=True)
        built.replace(self._place(file))
        return file

    def path_of(self, file: Sent) -> Path:
        """Return the path of a file whose hash was found right just now.

        Raises:
            DamagedFile: It is not what its hash says.
            FileNotFoundError: It is not here.
        """
        place = self._place(file)
        with place.open("rb") as stream:
            found = sha256_of(stream)
        if found != file.sha256:
            place.unlink()
            raise DamagedFile(f"{file.name} was changed on the device: its sha256 is {found[:12]}..., not {file.sha256[:12]}...")
        os.utime(place)
        return place

    def make_room(self, used: Collection[Sent]) -> None:
        """Remove the files that were used longest ago until the cache is below its limit; never those that are in use."""
        kept = {file.sha256 for file in used}
        found = sorted((file for file in self._folder.glob("*/*") if file.is_file()), key=lambda file: file.stat().st_mtime)
        size = sum(file.stat().st_size for file in found)
        for file in found:
            if size <= self._limit:
                return
            if file.parent.name not in kept:
                size -= file.stat().st_size
                file.unlink(missing_ok=True)
                with suppress(OSError):
                    file.parent.rmdir()

    def _finish(self, part: Path, file: Sent) -> None:
        with part.open("rb") as stream:
            found = sha256_of(stream)
        if found != file.sha256:
            part.unlink()
            raise DamagedFile(f"{file.name} arrived damaged: its sha256 is {found[:12]}..., not {file.sha256[:12]}...")
        part.replace(self._place(file))

    def _place(self, file: Sent) -> Path:
        """Return where a file lies: under its own name, by which runtimes know its kind and name it in messages."""
        return self._folder / file.sha256 / file.name

    def _part(self, file: Sent) -> Path:
        return self._place(file).with_name(f"{file.name}{PART}")


def sent(file: Path) -> Sent:
    """Describe a file that is to be sent."""
    with file.open("rb") as stream:
        return Sent(name=file.name, sha256=sha256_of(stream), size=os.fstat(stream.fileno()).st_size)


def files_here() -> Files:
    """Return the cache of this machine."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get(VARIABLE) or Path(home) / "bonsai-device")
    return Files(folder, int(float(os.environ.get(LIMIT_VARIABLE) or LIMIT_MB) * 1e6))
