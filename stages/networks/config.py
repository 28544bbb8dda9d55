"""Which network a recipe asks for."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from bonsai.profiles.located_yaml import Record
from bonsai.stages.imports.declared import Option, content_of, without_places
from bonsai.stages.imports.registry import code_digest

FILES = "model.files"


class ModelConfig(Record):
    """A network by name, built with `options` as keyword arguments.

    Attributes:
        name: A name of the table in `stages/networks/registry.py`, or ``package.module:factory``.
        options: Passed to the factory beside `in_channels` and `num_classes`.
        outputs: Which of several outputs the task uses, in its order: keys of a dict that forward() returns, or places in a tuple, counted from 0. Empty
            for a network that returns one tensor.
        seed: Seed of the initial weights.
        files: Inputs that your own factory reads: files, folders or patterns such as `weights/*.pth`, from the recipe's folder. Their contents are part of
            the input. An option that repeats an entry is passed as the path of that file.
    """

    name: Annotated[str, Field(max_length=200)]
    options: dict[str, Option] = {}
    outputs: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    files: tuple[str, ...] = ()
    content: SkipJsonSchema[str] = ""
    """Digest of what `files` held when the recipe was loaded (`pipeline/recipes/recipe.py`); nobody writes it into a recipe."""

    def identity(self) -> str:
        """Return the JSON, the digest of the user's own code where `name` is an import string, and that of the declared files."""
        content = self.content or content_of(self.files, Path.cwd(), FILES)
        options = without_places(self.options, self.files)
        return self.model_copy(update={"options": options}).model_dump_json(exclude={"files", "content"}) + code_digest(self.name) + content
