"""What to compress and how: one record per recipe, one config per stage."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.loader import find_yaml
from bonsai.profiles.located_yaml import LocatedMapping, Record, from_overrides, read_yaml, validate
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.data.config import DataConfig
from bonsai.stages.delivery.config import PackageConfig
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.imports.declared import announce, content_of
from bonsai.stages.imports.import_policy import require_import
from bonsai.stages.imports.registry import make_importable
from bonsai.stages.networks.config import ModelConfig, names_file
from bonsai.stages.pruning.config import PruneConfig
from bonsai.stages.quantization.config import QuantizeConfig
from bonsai.stages.tasks.registry import DEFAULT, TASKS, require_loss
from bonsai.stages.training.config import TrainConfig

SHIPPED = Path(__file__).parent


class Recipe(Record):
    """A recipe file: what to compress, and how.

    Attributes:
        name: Lower-case letters, digits, dots and hyphens; the first half of a package's name.
        description: One line for `bonsai list recipes` and the model card.
        profile: Default target: the name of a shipped profile, or the path of a file.
        task: The task, which decides the loss and the metric: classification, multi_label, regression or segmentation; or ``package.module:Task``, a task
            of your own. docs/tasks.md describes each.
        model: The network.
        data: The images.
        training: How the network is trained.
        prune: When and how the network is pruned.
        quantize: How the network is quantised.
        export: Form of the ONNX file.
        timing: How long engines are timed.
        package: Optional files of a package.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    description: str
    profile: str = "local-cpu"
    task: Annotated[str, Field(max_length=200)] = DEFAULT
    model: ModelConfig
    data: DataConfig
    training: TrainConfig = TrainConfig()
    prune: PruneConfig = PruneConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    export: ExportConfig = ExportConfig()
    timing: TimingConfig = TimingConfig()
    package: PackageConfig = PackageConfig()

    @field_validator("task")
    @classmethod
    def _is_known(cls, task: str) -> str:
        if task not in TASKS and ":" not in task:
            raise ValueError(f"there is no task {task!r}; there is {', '.join(TASKS)}, and package.module:Task")
        return task

    @model_validator(mode="after")
    def _checks_fit(self) -> "Recipe":
        training = self.training
        require_loss(self.task, training)
        if training.balance == "weights" and training.loss.weights:
            raise ValueError("training.balance `weights` computes training.loss.weights from the training part: write one of both")
        if (self.prune.policy.epoch or 0) > training.epochs:
            raise ValueError(f"prune.policy.epoch is beyond training.epochs ({training.epochs}): choose an earlier one, or the policy `trained`")
        if training.reference == "given" and self.model.weights is None:
            raise ValueError(
                "training.reference `given` is the network with the weights of model.weights, which is null: "
                "name a file there, or set training.reference to `trained` or `none`"
            )
        if training.reference == "none" and self.prune.distill and self.prune.distill.teacher == "trained":
            raise ValueError(
                "prune.distill.teacher `trained` is the reference, and training.reference is `none`: "
                "set prune.distill.teacher to `trigger`, or training.reference to `trained`"
            )
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
        name_or_path: A name of `list_recipes()` or a path that ends in ``.yaml``. Relative paths in the file, of a profile, of `model.weights`, of
            `data.options.root` and of `files`, start from its folder; those of `overrides` from the working directory, except for `files`, which start
            from the recipe's folder wherever they are given. A shipped recipe's folder is the working directory.
        overrides: Values by dotted key, such as ``{"quantize.epochs": 2}``. A mapping replaces the file's: ``{"model.options": {}}`` leaves no option.

    Raises:
        ConfigError: The recipe does not exist, or is not valid, or names code that may not be imported here (`stages/imports/import_policy.py`).
    """
    file = find_yaml(name_or_path, "recipe", SHIPPED)
    written = read_yaml(file)
    over = from_overrides(overrides or {})
    source = with_paths_from(file.parent, written).changed(over)
    _refuse_content(source)
    recipe = validate(Recipe, source)
    for key, name in (("model", recipe.model.name), ("data", recipe.data.name)):
        place = (written if _said(over, key, "name") is None else over).origin((key, "name"))
        require_import(name, place=place, in_file=_said(written, key, "name"))
    home = Path.cwd() if file.parent == SHIPPED else file.parent
    require_import(recipe.task, place=(written if "task" not in over.data else over).origin(("task",)), in_file=written.data.get("task"))
    for folder in dict.fromkeys((home, Path.cwd())):
        make_importable(folder, recipe.model.name, recipe.data.name, recipe.task)
    return _with_contents(recipe, home)


def _refuse_content(source: LocatedMapping) -> None:
    """Refuse in a recipe the key that `_with_contents` fills in."""
    for key in ("model", "data"):
        if _said(source, key, "content") is not None:
            raise ConfigError(
                describe(f"{source.origin((key, 'content'))}: unknown key '{key}.content'", given="a value", allowed=f"{key}.files", fix="remove it")
            )


def _with_contents(recipe: Recipe, home: Path) -> Recipe:
    """Return a recipe that knows what its declared files hold, and remember where they lie."""
    sections: dict[str, ModelConfig | DataConfig] = {"model": recipe.model, "data": recipe.data}
    update = {}
    for key, section in sections.items():
        content = content_of(section.files, home, f"{key}.files")
        announce(content, home)
        update[key] = section.model_copy(update={"content": content})
    return recipe.model_copy(update=update)


def _said(source: LocatedMapping, key: str, name: str) -> object:
    """Return what a source says at ``key.name``, or None."""
    section = source.data.get(key)
    return section.get(name) if isinstance(section, dict) else None


def with_paths_from(folder: Path, source: LocatedMapping) -> LocatedMapping:
    """Return a recipe's source with its relative paths as seen from the working directory, which they stay relative to."""
    data = dict(source.data)
    model = data.get("model")
    weights = model.get("weights") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(weights, str) and names_file(weights):
        data["model"] = {**model, "weights": _from(folder, weights)}
    profile = data.get("profile")
    if isinstance(profile, str) and profile.endswith((".yaml", ".yml")):
        data["profile"] = _from(folder, profile)
    images = data.get("data")
    options = images.get("options") if isinstance(images, dict) else None
    if isinstance(images, dict) and isinstance(options, dict) and isinstance(options.get("root"), str):
        data["data"] = {**images, "options": {**options, "root": _from(folder, options["root"])}}
    return LocatedMapping(data, source.origins, source.name)


def _from(folder: Path, path: str) -> str:
    """Return `path`, which starts at `folder`, as seen from the working directory: an absolute one would tell strangers how this machine is laid out."""
    return path if Path(path).is_absolute() else os.path.relpath(folder / path)
