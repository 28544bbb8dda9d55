"""Which network a recipe asks for, and which weights it starts with."""

from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from bonsai.profiles.located_yaml import Record
from bonsai.stages.imports.declared import Option, content_of, without_places
from bonsai.stages.imports.registry import code_digest
from bonsai.stages.networks.factories import LIBRARIES, of_library

FILES, WEIGHTS_KEY = "model.files", "model.weights"
PRETRAINED, RECIPE = "pretrained", "recipe:"
SUFFIXES = (".safetensors", ".pth", ".pt")


class GivenWeights(Record):
    """Weights that a network starts with, from outside of the store.

    Attributes:
        kind: ``file``, or ``pretrained`` for those of the network's library.
        file: Path of the file; no part of the identity.
        content: sha256 of the file.
    """

    kind: Literal["file", "pretrained"]
    file: str = ""
    content: str = ""

    def identity(self) -> str:
        """Return what the weights depend on."""
        return self.model_dump_json(exclude={"file"})


class ModelConfig(Record):
    """A network by name, built with `options` as keyword arguments.

    Attributes:
        name: A name of `bonsai list models`; ``timm/NAME`` or ``torchvision/NAME``; or ``package.module:factory``.
        options: Passed to the factory beside `in_channels` and `num_classes`.
        outputs: Which of several outputs the task uses, in its order: keys of a dict that forward() returns, or places in a tuple, counted from 0. Empty
            for a network that returns one tensor.
        seed: Seed of the initial weights.
        weights: Weights that the network starts with. A file (``.safetensors``, ``.pth``, ``.pt``), from the recipe's folder; ``pretrained``: those of timm
            or torchvision, which are fetched; ``recipe:NAME``: those of the dense network that a run of this recipe left in the same store; if
            there is none, that of a shipped recipe is trained first. Null: random ones.
        files: Inputs that your own factory reads: files, folders or patterns such as `tables/*.csv`, from the recipe's folder. Their contents are part of
            the input. An option that repeats an entry is passed as the path of that file.
    """

    name: Annotated[str, Field(max_length=200)]
    options: dict[str, Option] = {}
    outputs: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    weights: Annotated[str, Field(max_length=1000)] | None = None
    files: tuple[str, ...] = ()
    content: SkipJsonSchema[str] = ""
    """Digest of what `files` held when the recipe was loaded (`pipeline/recipes/recipe.py`); nobody writes it into a recipe."""

    @model_validator(mode="after")
    def _weights_can_be_had(self) -> "ModelConfig":
        if self.weights is None or self.weights.startswith(RECIPE) or self.weights_file is not None:
            return self
        if self.weights != PRETRAINED:
            raise ValueError(f"`weights` is a file ({', '.join(SUFFIXES)}), `{PRETRAINED}`, `{RECIPE}NAME` or null, not {self.weights!r}")
        if of_library(self.name) is None:
            libraries = " or ".join(f"{library}/NAME" for library in LIBRARIES)
            raise ValueError(f"`weights: {PRETRAINED}` takes the weights of a library, and {self.name!r} has none: name a network {libraries}, or a file")
        return self

    @property
    def weights_file(self) -> str | None:
        """The file that `weights` names, or None."""
        return self.weights if self.weights and names_file(self.weights) else None

    @property
    def architecture(self) -> "ModelConfig":
        """The network without the weights that it starts with: what a checkpoint records, which has weights of its own."""
        return self.model_copy(update={"weights": None})

    def identity(self) -> str:
        """Return what the architecture and its random weights depend on; `weights` enter the stage `initialise` alone.

        That is the JSON, the version of the network's library or the digest of the user's own code, and the digest of the declared files.
        """
        content = self.content or content_of(self.files, Path.cwd(), FILES)
        options = without_places(self.options, self.files)
        left_out = {"files", "content", "weights", *([] if self.outputs else ["outputs"])}  # so that stores of before keep their keys
        plain = self.model_copy(update={"options": options}).model_dump_json(exclude=left_out)
        return plain + code_digest(self.name) + _version_of_library(self.name) + content


def names_file(weights: str) -> bool:
    """Return whether `model.weights` names a file."""
    return weights.lower().endswith(SUFFIXES) and not weights.startswith(RECIPE)


def _version_of_library(name: str) -> str:
    """Return library and version behind ``timm/NAME`` and the like; else nothing."""
    library = name.partition("/")[0]
    if library not in LIBRARIES or "/" not in name:
        return ""
    try:
        return f"{library} {metadata.version(library)}"
    except metadata.PackageNotFoundError:  # the network cannot be built then, which is told where it is
        return library
