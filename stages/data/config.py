"""Which images a recipe asks for, and how they are split."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from bonsai.profiles.located_yaml import Record
from bonsai.stages.imports.declared import Option, content_of, without_places
from bonsai.stages.imports.registry import code_digest

FILES = "data.files"


class DataConfig(Record):
    """A dataset by name, loaded with `options` as keyword arguments, and its split.

    Attributes:
        name: A name of the table in `stages/data/registry.py`, or ``package.module:loader``.
        options: Passed to the loader.
        validation: Fraction of the images, 0-1, for all choices, such as the engine that ships.
        test: Fraction of the images, 0-1, that only the finished engine and the dense reference run.
        seed: Seed of the split. A dataset with a fixed split, such as `glyphs`, ignores `validation`, `test` and `seed`.
        files: Inputs that your own loader reads besides `options.root`: files, folders or patterns such as `tables/*.csv`, from the recipe's folder. Their
            contents are part of the input. An option that repeats an entry is passed as the path of that file.
    """

    name: Annotated[str, Field(max_length=200)]
    options: dict[str, Option] = {}
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.15
    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    seed: int = 0
    files: tuple[str, ...] = ()
    content: SkipJsonSchema[str] = ""
    """Digest of what `files` held when the recipe was loaded (`pipeline/recipes/recipe.py`); nobody writes it into a recipe."""

    @model_validator(mode="after")
    def _leaves_training(self) -> "DataConfig":
        if self.validation + self.test >= 0.9:
            raise ValueError("`validation` + `test` must leave at least 0.1 for training")
        return self

    def identity(self) -> str:
        """Return the JSON, the digest of the user's own code where `name` is an import string, and that of the declared files.

        The path `options.root` is left out, so that a project can be moved; `source_digest` covers its contents.
        """
        content = self.content or content_of(self.files, Path.cwd(), FILES)
        options = without_places(self.options, self.files)
        options = {key: "" if key == "root" and Path(str(value)).exists() else value for key, value in options.items()}
        return self.model_copy(update={"options": options}).model_dump_json(exclude={"files", "content"}) + code_digest(self.name) + content
