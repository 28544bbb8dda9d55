"""Which network a recipe asks for."""

from typing import Annotated

from pydantic import Field

from profiles.source import Record
from stages.registry import code_digest


class ModelConfig(Record):
    """A network by name, built with `options` as keyword arguments.

    Attributes:
        name: A name of the table in `stages/models/registry.py`, or ``package.module:factory``.
        options: Passed to the factory beside `in_channels` and `num_classes`.
        seed: Of the initial weights.
    """

    name: Annotated[str, Field(max_length=200)]
    options: dict[str, int | float | str | bool] = {}
    seed: Annotated[int, Field(ge=0)] = 0

    def identity(self) -> str:
        """Return the JSON, and the digest of the user's own code where `name` is an import string."""
        return self.model_dump_json() + code_digest(self.name)
