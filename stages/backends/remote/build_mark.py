"""Which Bonsai this is: host and device must have the same, or they would measure in different ways."""

from functools import cache
from importlib import metadata

from bonsai.profiles.located_yaml import Record
from bonsai.stages.imports.contents import digest_of, files_at
from bonsai.stages.imports.user_code import BONSAI

DISTRIBUTION = "bonsai-compress"
SHOWN = 12


class BuildMark(Record):
    """A version of Bonsai.

    Attributes:
        version: Of the distribution.
        code: sha256 of the code that measures, which tells apart two states of a source tree.
    """

    version: str
    code: str

    def __str__(self) -> str:
        return f"bonsai {self.version}, code {self.code[:SHOWN]}"


@cache
def this_build() -> BuildMark:
    """Return the mark of the Bonsai that runs here."""
    profiles, stages, _ = BONSAI
    files = {f"{room.name}/{name}": file for room in (profiles, stages) for name, file in files_at(room, "bonsai").items() if file.suffix == ".py"}
    return BuildMark(version=metadata.version(DISTRIBUTION), code=digest_of(files, "bonsai"))
