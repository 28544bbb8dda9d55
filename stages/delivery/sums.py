"""``SHA256SUMS``: the checksums of a package, as ``sha256sum --check`` reads them."""

import re
from collections.abc import Mapping
from pathlib import Path

from profiles.errors import describe
from stages.artifacts import sha256_file
from stages.errors import VerificationError

SUMS = "SHA256SUMS"
LINE = re.compile(r"(?P<sum>[0-9a-f]{64}) [ *](?P<name>[^\n]+)")
"""A blank marks a text file and an asterisk a binary one, which are the same on every system of today."""
CHANGED = "the package was changed, or came over damaged: copy it again, or run `bonsai run` again"


def write_sums(folder: Path) -> None:
    """List every file below `folder` in its ``SHA256SUMS``."""
    names = sorted(list_files(folder))
    (folder / SUMS).write_text("".join(f"{sha256_file(folder / name)}  {name}\n" for name in names), encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """Return the sha256 by name that a package's ``SHA256SUMS`` lists.

    Raises:
        VerificationError: There is none, or a line is no checksum.
    """
    if not (folder / SUMS).is_file():
        raise VerificationError(describe(f"{SUMS}: missing", given=folder, allowed="a package with its checksums", fix=CHANGED))
    sums = {}
    for number, line in enumerate((folder / SUMS).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        match = LINE.fullmatch(line)
        if match is None:
            raise VerificationError(describe(f"{SUMS}:{number}: not a checksum", given=line, allowed="64 hexadecimal digits, two blanks, a name", fix=CHANGED))
        sums[match["name"]] = match["sum"]
    return sums


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
    """Return the path of every file below `folder` but its ``SHA256SUMS``, relative to it."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()} - {SUMS}
