"""Tasks by name, and the torch half of one."""

from typing import TYPE_CHECKING

from bonsai.profiles.errors import ConfigError, describe, suggestion
from bonsai.stages.imports.registry import resolve
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.task import Learning, Task

if TYPE_CHECKING:
    from bonsai.stages.training.config import TrainConfig

TASKS = {"classification": "bonsai.stages.tasks.classification.judging:CLASSIFICATION"}
DEFAULT = "classification"
"""Task of recipes that name none, and of packages from before recipes could name one."""


def task_named(name: str) -> Task:
    """Return a task.

    Raises:
        ConfigError: There is none of this name.
    """
    if name not in TASKS:  # not even an import string: a name may come with a stranger's package
        problem = f"no task of this name{suggestion(name, TASKS)}"
        raise ConfigError(describe(problem, given=name, allowed=list(TASKS), fix="use one of these names"))
    task: Task = resolve(name, TASKS, "task")
    return task


def metric_named(name: str) -> Metric:
    """Return the metric that is stored under a name; of a task that is not known here, one that is written as it is."""
    known = (task_named(task).metric for task in TASKS)
    return next((metric for metric in known if metric.name == name), Metric(name=name, label=name, direction="higher", best=1.0))


def learning_of(name: str, config: "TrainConfig") -> Learning:
    """Return the torch half of a task, with what a recipe's training says of the loss."""
    path = task_named(name).learning
    learning: Learning = resolve(path, {path: path}, "task")(config)  # the task vouches for its other half
    return learning
