"""Tasks by name, and the torch half of one."""

from typing import TYPE_CHECKING

from bonsai.profiles.errors import ConfigError, describe, suggestion
from bonsai.stages.imports.registry import resolve
from bonsai.stages.tasks.loss_config import FORMS, LossConfig
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.task import Learning, Task

if TYPE_CHECKING:
    from bonsai.stages.training.config import TrainConfig

TASKS = {
    "classification": "bonsai.stages.tasks.classification.judging:CLASSIFICATION",
    "multi_label": "bonsai.stages.tasks.multi_label.judging:MULTI_LABEL",
    "regression": "bonsai.stages.tasks.regression.judging:REGRESSION",
    "segmentation": "bonsai.stages.tasks.segmentation.judging:SEGMENTATION",
}
DEFAULT = "classification"
"""Task of recipes that name none, and of packages from before recipes could name one."""


def task_named(name: str) -> Task:
    """Return a task: one of the table, or of a recipe's own code, ``package.module:Task``, a class without arguments or an object.

    A name that came with a package must not be given to this function, since an import string runs code: see `packaged_task`.

    Raises:
        ConfigError: There is none of this name, or its code may not be imported here.
    """
    if name not in TASKS and ":" not in name:
        problem = f"no task of this name{suggestion(name, TASKS)}"
        raise ConfigError(describe(problem, given=name, allowed=[*TASKS, "package.module:Task"], fix="use one of these names"))
    found = resolve(name, TASKS, "task")
    task: Task = found() if isinstance(found, type) else found
    return task


def packaged_task(name: str) -> Task | None:
    """Return the task that a package names; None for one of its maker's own code, which is not run."""
    return task_named(name) if name in TASKS else None


def metric_named(name: str) -> Metric:
    """Return the metric that is stored under a name; of a task that is not known here, one that is written as it is."""
    known = (task_named(task).metric for task in TASKS)
    return next((metric for metric in known if metric.name == name), Metric(name=name, label=name, direction="higher", best=1.0))


def learning_of(name: str, config: "TrainConfig") -> Learning:
    """Return the torch half of a task, with what a recipe's training says of the loss."""
    path = task_named(name).learning
    learning: Learning = resolve(path, {path: path}, "task")(config)  # the task vouches for its other half
    return learning


def require_loss(task: str, loss: LossConfig) -> None:
    """Refuse options of a loss that a task of the table does not have.

    Raises:
        ValueError: It has not.
    """
    if task in FORMS:
        loss.form_for(task)
