"""``SHA256SUMS``: the checksums of a package, as ``sha256sum --check`` reads them."""

import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from bonsai.profiles.bounded_json import read_text
from bonsai.profiles.errors import describe, shorten
from bonsai.stages.errors import VerificationError
from bonsai.stages.store.artifact import sha256_file

SUMS = "SHA256SUMS"
SIGNATURE = "model.sig"
"""Signs all other files, the sums among them, and so is in no list (`stages/delivery/signing.py`)."""
LINE = re.compile(r"(?P<sum>[0-9a-f]{64}) [ *](?P<name>[^\n]+)")
"""A blank marks a text file and an asterisk a binary one, which are the same on every system of today."""
MOST_BYTES = 2**20
NAME = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[^/\\\x00-\x1f\x7f]+(?:/[^/\\\x00-\x1f\x7f]+)*")
"""Pattern for the path of a file in the package. It cannot lead out of the package, and each file has only one such path."""
CHANGED = "the package was changed, or came over damaged: copy it again, or run `bonsai run` again"


def write_sums(folder: Path) -> None:
    """List every file below `folder` in its ``SHA256SUMS``."""
    names = sorted(list_files(folder))
    (folder / SUMS).write_text("".join(f"{sha256_file(folder / name)}  {name}\n" for name in names), encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """Return the sha256 by name that a package's ``SHA256SUMS`` lists.

    Raises:
        VerificationError: There is none, or a line is no checksum, names a file outside the package, or one that was named before.
    """
    if not (folder / SUMS).is_file():
        raise VerificationError(describe(f"{SUMS}: missing", given=folder, allowed="a package with its checksums", fix=CHANGED))
    try:
        text = read_text(folder / SUMS, limit=MOST_BYTES)
    except (OSError, ValueError) as error:
        raise VerificationError(describe(f"{SUMS}: cannot be read", given=error, allowed="a list of checksums in UTF-8", fix=CHANGED)) from error
    sums: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1] if text.endswith("\n") else text.split("\n"), 1):
        match = LINE.fullmatch(line)
        if match is None:
            allowed = "64 hexadecimal digits, two blanks, a name"
            raise VerificationError(describe(f"{SUMS}:{number}: not a checksum", given=shorten(line), allowed=allowed, fix=CHANGED))
        if match["name"] in sums:
            raise VerificationError(describe(f"{SUMS}:{number}: a file is named twice", given=shorten(line), allowed="each file once", fix=CHANGED))
        sums[match["name"]] = match["sum"]
    require_names(sums, SUMS)
    return sums


def require_names(names: Iterable[str], place: str) -> None:
    """Check that names are those of files below the package.

    Raises:
        VerificationError: The first that is an absolute path, leads out of the package, or can be written in another way.
    """
    for name in names:
        if NAME.fullmatch(name) is None:
            allowed = "a path below the package, with / between its parts and without . or .."
            raise VerificationError(describe(f"{place}: a name that is no file of the package", given=shorten(repr(name)), allowed=allowed, fix=CHANGED))


def require_plain(folder: Path) -> None:
    """Check that a package is made of regular files, and of folders that hold some.

    Raises:
        VerificationError: The first link, empty folder, pipe, socket or device.
    """
    for entry in sorted(folder.rglob("*")):
        name, mode = entry.relative_to(folder).as_posix(), entry.lstat().st_mode
        if stat.S_ISLNK(mode):
            kind = "a link"
        elif stat.S_ISDIR(mode):
            kind = "" if any(entry.iterdir()) else "an empty folder"
        else:
            kind = "" if stat.S_ISREG(mode) else "no regular file"
        if kind:
            fix = "copy the package again without links, or remove what does not belong to it"
            raise VerificationError(describe(f"{name}: {kind}", given=name, allowed="regular files alone: a package is closed", fix=fix))


def require_sums(folder: Path, listed: Mapping[str, str]) -> None:
    """Check that a folder holds exactly the files listed, with their sums.

    Raises:
        VerificationError: The first file that is missing, not listed, or changed.
    """
    found = list_files(folder)
    for name in sorted(found - listed.keys()):
        raise VerificationError(describe(f"{name}: not listed in the manifest", given=name, allowed=sorted(listed), fix="remove it: a package is closed"))
    for name, expected in listed.items():
        if not (folder / name).is_file():
            raise VerificationError(
                describe(f"{name}: listed in the manifest, but missing", given=", ".join(sorted(found)), allowed=sorted(listed), fix=CHANGED)
            )
        actual = sha256_file(folder / name)
        if actual != expected:
            raise VerificationError(describe(f"{name}: its sha256 is not the manifest's; the file was changed", given=actual, allowed=expected, fix=CHANGED))


def list_files(folder: Path) -> set[str]:
    """Return the path of every file below `folder` but its ``SHA256SUMS`` and its signature, relative to it."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()} - {SUMS, SIGNATURE}
