"""What the samples of a stored dataset are made from."""

from pathlib import Path

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.registry import ROOT, root_of
from bonsai.stages.imports.declared import Option, place_of


class Origin(Record):
    """What the samples of a dataset are made from, wherever its files lie now.

    Attributes:
        name: As in `DataConfig`, like `options` and `files`.
        options: Without the place of the files.
        files: Declared files.
        content: Digest of the declared files.
        source: Digest of what `options.root` leads to (`source_digest`).
    """

    name: str
    options: dict[str, Option]
    files: tuple[str, ...]
    content: str
    source: str

    @classmethod
    def of(cls, data: DataConfig, source: str) -> "Origin":
        """Return the origin of a dataset that a recipe asks for."""
        options = {key: value for key, value in data.options.items() if key != "root" or root_of(data) is None}
        return cls(name=data.name, options=options, files=data.files, content=data.content, source=source)

    @property
    def root(self) -> Path:
        """Where the files lie now.

        Raises:
            ConfigError: Nobody has said it: the recipe was not loaded here.
        """
        place = place_of(self.source)
        if place is None or not place.exists():
            given = f"dataset {self.name!r}, which was prepared from files that are not copied" + (f", last seen in {place}" if place else "")
            allowed = "the same files, at data.options.root of the recipe"
            raise ConfigError(describe(f"{ROOT}: the dataset's files are not there", given=given, allowed=allowed, fix="run the recipe that names them"))
        return place
