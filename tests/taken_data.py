"""What a stage does with a loader's images: checks them, and their targets by the task."""

import torch

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.checking import check_loaded
from bonsai.stages.data.registry import LoadedImages
from bonsai.stages.tasks.classification.judging import CLASSIFICATION
from bonsai.stages.tasks.task import DataSpec, Task


def taken(loaded: object, name: str, task: Task = CLASSIFICATION) -> LoadedImages:
    found = check_loaded(loaded, name)
    assert isinstance(found, LoadedImages)
    try:
        targets = task.check_targets(found.labels.numpy(), DataSpec(tuple(found.images.shape[1:]), len(found.classes)), found.classes)
    except ConfigError as error:
        raise ConfigError(f"dataset {name!r}: {error}") from error
    return found._replace(labels=torch.from_numpy(targets))
