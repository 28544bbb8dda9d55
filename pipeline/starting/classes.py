"""A folder of images by class, as `bonsai init` finds it."""

from pathlib import Path

import numpy as np

from bonsai.pipeline.starting.samples import Samples, look_at, some_of
from bonsai.profiles.errors import visible
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.image_folder import Folder, passed_over, scan_folder
from bonsai.stages.data.splitting import split_samples
from bonsai.stages.tasks.registry import DEFAULT, task_named

MASKS = ("mask", "masks")
"""Names of folders that hold the targets of a segmentation and no class."""
FEW = 20
"""Samples of a class from which a network learns something."""
UNEQUAL = 5
"""Classes are balanced if none has more than so many times the targets of another."""
LISTED = 12


def find_classes(root: Path, data: DataConfig) -> Samples:
    """Look at a folder with one sub-folder of images per class, or with train, val and test of these.

    Raises:
        ConfigError: It is no such folder, has too few images for the split, or one that cannot be opened.
    """
    found = scan_folder(root)
    seen = look_at([image.path for image in some_of(found.images)])
    labels = np.array([image.label for image in found.images])
    parts = None if found.images[0].part is None else np.array([image.part for image in found.images])
    split = split_samples(labels, parts, len(labels), found.classes, data)
    sizes = {name: len(numbers) for name, numbers in split.items()}
    return Samples(
        task=DEFAULT,
        root=root,
        classes=found.classes,
        found=f"{len(labels)} images of {len(found.classes)} classes",
        parts=sizes,
        given=frozenset() if parts is None else frozenset(parts.tolist()),
        targets=labels,
        seen=seen._replace(size=(min(seen.size),) * 2),  # what is in an image matters here, and not where
        facts=(_counts(found, sizes), *_warnings(found)),
    )


def _counts(found: Folder, sizes: dict[str, int]) -> str:
    counts = found.counts()
    shown = ", ".join(f"{visible(name, keep='')} {count}" for name, count in list(counts.items())[:LISTED]) + (
        f" and {len(counts) - LISTED} more classes" if len(counts) > LISTED else ""
    )
    return f"{len(found.images)} images: {shown}; {', '.join(f'{count} for {part}' for part, count in sizes.items())}"


def _warnings(found: Folder) -> list[str]:
    counts, lines = {visible(name, keep=""): count for name, count in found.counts().items()}, []
    few, many = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    if found.others:
        lines.append(f"warning: {passed_over(found)}")
    if masks := [name for name in counts if name.lower() in MASKS]:
        lines.append(f"warning: the folder {masks[0]} is taken for a class; for a segmentation name both folders: --data IMAGES --masks {masks[0]}")
    if counts[many] > UNEQUAL * counts[few]:
        label = task_named(DEFAULT).metric.label
        lines.append(f"warning: {many} has {counts[many]} images, {few} only {counts[few]}: a network that never predicts {few} can still reach a high {label}")
    if counts[few] < FEW:
        lines.append(f"warning: {few} has {counts[few]} images; a network learns little from fewer than {FEW}")
    return lines
