"""Stage `prepare`: load a dataset and split it once and for all."""

from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from bonsai.profiles.errors import ConfigError
from bonsai.stages.data.checking_samples import check_samples
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.loading import load_data, watching
from bonsai.stages.data.origin import Origin
from bonsai.stages.data.source import part_file
from bonsai.stages.data.splitting import split_samples
from bonsai.stages.data.storing import Index, hold
from bonsai.stages.store.store import stage
from bonsai.stages.store.tensor_files import written_plainly
from bonsai.stages.tasks.registry import DEFAULT, task_named
from bonsai.stages.tasks.task import DataSpec


def figures_of(dataset: Dataset) -> str:
    """Return which images these are and how many, in a few words."""
    return f"{dataset.name}, {sum(dataset.sizes.values())} images, {len(dataset.classes)} classes"


@stage(version=4, tools=("numpy", "scikit-learn", "pillow", "torch"), figures=figures_of)
def prepare(out_dir: Path, data: DataConfig, content: str, task: str = DEFAULT, task_code: str = "") -> Dataset:
    """Write the train, validation and test split of a dataset: its samples, or where they are found if they are too large to keep.

    Args:
        out_dir: Receives one file per part.
        data: Which samples.
        content: Digest of the files they come from (`source_digest`), so that changed files are another input.
        task: Name of the task that the targets are for.
        task_code: Digest of the code of a task of the user's own (`code_digest`), so that a changed loss or metric is another input.

    Raises:
        ConfigError: The dataset or one of its options does not exist, a sample cannot be read, the targets are none of the task, or a class is
            too small to split.
    """
    with watching(data):
        held = hold(load_data(data))
    facts = held.loaded if isinstance(held, Index) else held
    judge = task_named(task)
    spec = DataSpec(facts.preprocess.image_shape, len(facts.classes), facts.preprocess)

    def fits(targets: np.ndarray) -> np.ndarray:
        return judge.check_targets(targets, spec, facts.classes)

    try:
        targets = None if held.targets is None else fits(held.targets)
        if isinstance(held, Index):
            check_samples(held.loaded, fits)
    except ConfigError as error:
        raise ConfigError(f"dataset {data.name!r}: {error}") from error
    parts = split_samples(None if targets is None else judge.strata(targets), facts.parts, len(held), facts.classes, data)
    for name, numbers in parts.items():
        with written_plainly(part_file(out_dir, name)):
            save_file(held.tensors(numbers, targets), part_file(out_dir, name))
    sizes = {name: len(numbers) for name, numbers in parts.items()}
    dataset = Dataset(
        folder=out_dir,
        name=data.name,
        preprocess=facts.preprocess,
        classes=facts.classes,
        sizes=sizes,
        licence=facts.licence,
        task=task,
        task_code=task_code,
    )
    if not isinstance(held, Index):
        return dataset
    origin = Origin.of(data, content)
    contents = {name: held.digest(numbers, targets, origin.model_dump_json()) for name, numbers in parts.items()}
    return dataset.model_copy(update={"stored": "index", "origin": origin, "contents": contents})
