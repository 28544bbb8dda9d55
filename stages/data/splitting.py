"""Splits samples into parts: those of training, validation and test."""

import numpy as np

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.registry import TEST, TRAIN, VALIDATION

TOO_SMALL = "the dataset is too small for a stratified split"
MORE = "add images to the smallest classes or remove these classes, or change data.validation and data.test"
TOO_FEW, ADD = "the dataset is too small for a split", "add images, or change data.validation and data.test"


def split_samples(labels: np.ndarray | None, parts: np.ndarray | None, count: int, classes: tuple[str, ...], data: DataConfig) -> dict[str, np.ndarray]:
    """Return the numbers of the samples of each part, sorted; what a dataset that comes split lacks is drawn from its training samples.

    Args:
        labels: (n,) int64: every part has the same shares of them; the classes, or any other numbers from their number on. None draws from all alike.
        parts: (n,) TRAIN, VALIDATION or TEST; None where the dataset does not come split.
        count: Number of samples.
        classes: Names of the labels, for messages.
        data: Shares and seed.

    Raises:
        ConfigError: There are too few samples, of a class or in all, for a part that is drawn.
    """
    whole = np.full(count, TRAIN) if parts is None else parts.copy()
    for part, share in ((TEST, data.test), (VALIDATION, data.validation / (1 - data.test) if parts is None else data.validation)):
        if not (whole == part).any():
            whole[_draw(np.flatnonzero(whole == TRAIN), labels, share, data, classes)] = part
    found = {name: np.flatnonzero(whole == part) for name, part in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))}
    if labels is not None and (parts is None or len(np.unique(parts)) < len(found)):
        _require_every_class(found, labels, classes)
    return found


def _draw(numbers: np.ndarray, labels: np.ndarray | None, share: float, data: DataConfig, classes: tuple[str, ...]) -> np.ndarray:
    """Draw a share of samples, stratified where there are labels."""
    from sklearn.model_selection import train_test_split  # here: its import costs a second, and what is prepared already needs none of it

    try:
        _, drawn = train_test_split(numbers, test_size=share, stratify=None if labels is None else labels[numbers], random_state=data.seed)
    except ValueError as error:
        if labels is None:
            given = f"{len(numbers)} images to draw from ({error})"
            raise ConfigError(describe(TOO_FEW, given=given, allowed="an image in every part", fix=ADD)) from error
        counts = np.bincount(labels[numbers], minlength=len(classes))
        smallest = ", ".join(f"{_named(label, classes)} {counts[label]}" for label in counts.argsort(kind="stable")[:5])
        given = f"{len(numbers)} images to draw from, the smallest classes: {smallest} ({error})"
        raise ConfigError(describe(TOO_SMALL, given=given, allowed="several images of every class in every part", fix=MORE)) from error
    return np.asarray(drawn)


def _require_every_class(parts: dict[str, np.ndarray], labels: np.ndarray, classes: tuple[str, ...]) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    needed = range(len(classes)) if labels.max() < len(classes) else np.flatnonzero(counts).tolist()
    lacking = {label: name for name, numbers in parts.items() for label in needed if not (labels[numbers] == label).any()}
    if lacking:
        shown = ", ".join(f"{_named(label, classes)} ({counts[label]} images, none for {part})" for label, part in list(lacking.items())[:5])
        raise ConfigError(describe(TOO_SMALL, given=shown, allowed="at least one image of every class in every part", fix=MORE))


def _named(label: int, classes: tuple[str, ...]) -> str:
    """Return the name of what is split by: a class, or the rest."""
    return classes[label] if label < len(classes) else "others"
