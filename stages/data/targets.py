"""Which targets a task takes, and by which labels samples are split: classification's answers."""

import numpy as np

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.tasks.task import DataSpec

ALLOWED = "(n,) int64: one class for each sample, counted from 0"


def check_targets(targets: np.ndarray, spec: DataSpec, classes: tuple[str, ...]) -> np.ndarray:
    """Return targets in the type that the task takes.

    Args:
        targets: (n, ...), one for each sample.
        spec: What the samples are.
        classes: Names of all classes.

    Raises:
        ConfigError: They are no targets of this task; the message says what to change.
    """
    given = f"{targets.dtype} {list(targets.shape)}"
    if len(classes) < 2:
        raise _refusal("there are fewer than two classes", f"classes {classes}", "at least two", "name every class once, in the order of the labels")
    if targets.ndim >= 3:
        raise _refusal("labels are masks, or are none", given, ALLOWED, "masks need a segmentation network; return one class for each image")
    if targets.ndim == 2:
        fix = "one column: labels[:, 0]; one-hot rows: labels.argmax(1); several labels for one image are another task"
        raise _refusal("there are several labels for each image", given, ALLOWED, fix)
    if not np.issubdtype(targets.dtype, np.integer) and targets.dtype != np.bool_:
        raise _refusal("labels are no whole numbers", given, ALLOWED, "targets of a regression are another task; whole numbers: labels.long()")
    if targets.dtype != np.int64:
        raise _refusal("labels are another kind of number", given, ALLOWED, "convert them: labels.long()")
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= len(classes):
        from_one = low == 1 and high == len(classes)
        fix = "the labels count from 1: subtract 1, labels - 1" if from_one else "count the classes from 0, and name every class in `classes`"
        raise _refusal("labels name classes that are not there", f"{low} to {high}, and {len(classes)} classes", f"0 to {len(classes) - 1}", fix)
    return targets


def strata(targets: np.ndarray) -> np.ndarray | None:
    """Return the labels (n,) that every part of a split has in the same shares; None for a plain random split."""
    return targets


def _refusal(problem: str, given: object, allowed: str, fix: str) -> ConfigError:
    return ConfigError(describe(problem, given=given, allowed=allowed, fix=fix))
