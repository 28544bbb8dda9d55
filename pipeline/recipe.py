"""What to compress and how: one record per recipe, one config per stage."""

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
from stages.training.config import TrainConfig

SHIPPED = Path(__file__).parent / "recipes"


class Recipe(Record):
    """What to compress, and how: a recipe file.

    Attributes:
        name: Lower-case letters, digits, dots and hyphens; the first half of a package's name.
        description: One line for `bonsai list recipes` and the model card.
        profile: Target where the caller names none.
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
        epi, training = self.prune.epi, self.training
        latest = int(epi.latest * training.epochs * training.checks_per_epoch)
        if latest < 1:
            raise ValueError("prune.epi.latest leaves no check before it: raise it, training.epochs or training.checks_per_epoch")
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

    Args:
        name_or_path: A name of `list_recipes()` or a path that ends in ``.yaml``.
        overrides: Dotted keys laid over the file, such as ``{"quantize.epochs": 2}``.

    Raises:
        ConfigError: The recipe does not exist, or is not valid.
    """
    source: Source = read_yaml(find_yaml(name_or_path, "recipe", SHIPPED))
    if overrides:
        source = source.merged(from_overrides(overrides))
    return validate(Recipe, source)
