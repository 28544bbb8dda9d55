"""Which images a recipe asks for, and how they are split."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from profiles.source import Record
from stages.registry import code_digest


class DataConfig(Record):
    """A dataset by name, loaded with `options` as keyword arguments, and its split.

    Attributes:
        name: A name of the table in `stages/data/registry.py`, or ``package.module:loader``.
        options: Passed to the loader.
        validation: Share of the images that decides between epochs, 0-1.
        test: Share of the images that only the finished engine sees, 0-1.
        seed: Of the split. A dataset that comes split, such as `glyphs`, ignores these three.
    """

    name: Annotated[str, Field(max_length=200)]
    options: dict[str, int | float | str | bool] = {}
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.15
    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_training(self) -> "DataConfig":
        if self.validation + self.test >= 0.9:
            raise ValueError("`validation` + `test` must leave at least 0.1 for training")
        return self

    def identity(self) -> str:
        """Return the JSON, and the digest of the user's own code where `name` is an import string.

        Where a folder lies is no part of it, so that a project can be moved: `source_digest` tells what is in it.
        """
        options = {key: "" if key == "root" and Path(str(value)).is_dir() else value for key, value in self.options.items()}
        return self.model_copy(update={"options": options}).model_dump_json() + code_digest(self.name)
