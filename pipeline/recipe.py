"""What to compress and how: one record per recipe, one config per stage."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from profiles.loader import find_yaml
from profiles.source import Record, Source, from_overrides, read_yaml, validate
from stages.backends.timing import TimingConfig
from stages.data.config import DataConfig
from stages.graph.config import ExportConfig
from stages.models.config import ModelConfig
from stages.pruning.config import PruneConfig
from stages.quantization.config import QuantizeConfig
from stages.registry import make_importable
from stages.training.config import TrainConfig

SHIPPED = Path(__file__).parent / "recipes"


class Recipe(Record):
    """What to compress, and how: a recipe file.

    Attributes:
        name: Lower-case letters, digits, dots and hyphens; the first half of a package's name.
        description: One line for `bonsai list recipes` and the model card.
        profile: Target where the caller names none: a shipped name, or the path of a file.
        model: Which network.
        data: Which images.
        training: How it is trained.
        prune: When, what and how far it is pruned.
        quantize: How it is quantised.
        export: Form of the ONNX file.
        timing: How long engines are timed.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    description: str
    profile: str = "local-cpu"
    model: ModelConfig
    data: DataConfig
    training: TrainConfig = TrainConfig()
    prune: PruneConfig = PruneConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    export: ExportConfig = ExportConfig()
    timing: TimingConfig = TimingConfig()

    @model_validator(mode="after")
    def _checks_fit(self) -> "Recipe":
        training = self.training
        if (self.prune.policy.epoch or 0) > training.epochs:
            raise ValueError(f"prune.policy.epoch is beyond training.epochs ({training.epochs}): choose an earlier one, or the policy `trained`")
        if self.prune.schedule.soft and self.prune.criterion == "bn_gradient" and training.precision == "fp16":
            raise ValueError("prune.schedule.soft scores masked channels by gradients that fp16 scales: set training.precision to fp32 or bf16")
        return self


def list_recipes() -> list[str]:
    """Return the names of the recipes that ship with Bonsai."""
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def load_recipe(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load a recipe by its shipped name or by the path of a YAML file.

    From here on Python finds modules in the folder of the file and in the working directory, behind all that is installed.

    Args:
        name_or_path: A name of `list_recipes()` or a path that ends in ``.yaml``. Relative paths in the file, of a profile and of
            `data.options.root`, start from its folder; those of `overrides` from the working directory.
        overrides: Dotted keys laid over the file, such as ``{"quantize.epochs": 2}``.

    Raises:
        ConfigError: The recipe does not exist, or is not valid.
    """
    file = find_yaml(name_or_path, "recipe", SHIPPED)
    source = with_paths_from(file.parent, read_yaml(file))
    if overrides:
        source = source.merged(from_overrides(overrides))
    recipe = validate(Recipe, source)
    for folder in dict.fromkeys([*([] if file.parent == SHIPPED else [file.parent]), Path.cwd()]):
        make_importable(folder, recipe.model.name, recipe.data.name)
    return recipe


def with_paths_from(folder: Path, source: Source) -> Source:
    """Return a recipe's source with its relative paths as seen from the working directory, which they stay relative to."""
    data = dict(source.data)
    profile = data.get("profile")
    if isinstance(profile, str) and profile.endswith((".yaml", ".yml")):
        data["profile"] = _from(folder, profile)
    images = data.get("data")
    options = images.get("options") if isinstance(images, dict) else None
    if isinstance(images, dict) and isinstance(options, dict) and isinstance(options.get("root"), str):
        data["data"] = {**images, "options": {**options, "root": _from(folder, options["root"])}}
    return Source(data, source.origins, source.name)


def _from(folder: Path, path: str) -> str:
    """Return `path`, which starts at `folder`, as seen from the working directory: an absolute one would tell strangers how this machine is laid out."""
    return path if Path(path).is_absolute() else os.path.relpath(folder / path)
