"""What a network's outputs mean to people: the prediction for one sample, and the figure of many.

This file needs NumPy alone and imports nothing of Bonsai: a package's `predict.py` holds it as it is. The figures are those of each task's
`judging.py`, without their intervals, which need SciPy; a test compares the two.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

LABEL, MASK = "label", "mask"
"""Columns of a table: the name of a sample's class, and the path of its mask. Tasks of several figures have a column for each, by its name."""
UNCOUNTED = 255
"""Class of the pixels of a mask that do not count."""


class Reading(Protocol):
    """How the outputs of one task are read. `output` is that of one sample, without the batch dimension.

    Attributes:
        has_masks: Whether predictions and targets are masks, (height, width) of class indices.
        sentence: What an output is, for people.
    """

    has_masks: bool
    sentence: str

    def columns(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return the head of a table of predictions; empty if a line says all."""
        ...

    def predict(self, output: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
        """Return the prediction by name, such as class and probability."""
        ...

    def line(self, prediction: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the cells of a prediction's line, in the order of `columns`."""
        ...

    def target(self, cells: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
        """Return the target of a sample as Bonsai stores it, given what a table or a folder says of it; a mask is read elsewhere.

        Raises:
            ValueError: It is no target; the message says what is allowed.
        """
        ...

    def observe(self, output: np.ndarray, target: np.ndarray) -> Any:
        """Return what a sample contributes to the figure."""
        ...

    def figure(self, observed: Sequence[Any]) -> float:
        """Return the task's metric of all samples."""
        ...


class ReadClasses:
    """One class a sample: `output` (classes,) float32 before the softmax, a target () int64."""

    has_masks = False
    sentence = "the output has a logit for each class; the largest one is the prediction, softmax gives probabilities"

    def columns(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return nothing: a line has class and probability."""
        return ()

    def predict(self, output: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
        """Return the class and its probability, 0-1."""
        best = int(output.argmax())
        powers = np.exp(output.astype(np.float64) - output.max())
        return {"class": classes[best], "probability": float(powers[best] / powers.sum())}

    def line(self, prediction: Mapping[str, Any]) -> tuple[str, ...]:
        """Return class and probability."""
        return prediction["class"], f"{prediction['probability']:.2%}"

    def target(self, cells: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
        """Return the number of the class that is named."""
        if cells.get(LABEL) not in classes:
            raise ValueError(f"{cells.get(LABEL, 'no label')}: the label is one of the package's classes: {', '.join(classes)}")
        return np.array(classes.index(cells[LABEL]), dtype=np.int64)

    def observe(self, output: np.ndarray, target: np.ndarray) -> bool:
        """Return whether the class is right."""
        return bool(output.argmax() == target)

    def figure(self, observed: Sequence[bool]) -> float:
        """Return top-1, 0-1."""
        return float(np.array(observed).mean())


class ReadLabels:
    """Several labels a sample: `output` (labels,) float32 before the sigmoid, a target (labels,) float32 of 0 and 1."""

    has_masks = False
    sentence = "the output has a logit for each label; its sigmoid is the label's probability"

    def columns(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return the labels."""
        return tuple(classes)

    def predict(self, output: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
        """Return the labels of a probability of at least 0.5, and the probability of each, 0-1."""
        chances = 1 / (1 + np.exp(-output.astype(np.float64)))
        shown = dict(zip(classes, chances.tolist(), strict=True))
        return {"labels": [name for name, chance in shown.items() if chance >= 0.5], "probabilities": shown}

    def line(self, prediction: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the probability of each label."""
        return tuple(f"{chance:.2%}" for chance in prediction["probabilities"].values())

    def target(self, cells: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
        """Return 1 for each label that the sample has, and 0 for the others."""
        found = numbers_of(cells, classes)
        if not ((found == 0) | (found == 1)).all():
            raise ValueError(f"{', '.join(map(str, found))}: a label is 0 or 1")
        return found

    def observe(self, output: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the outputs and the labels."""
        return output.astype(np.float32), target.astype(np.uint8)

    def figure(self, observed: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
        """Return mAP, 0-1, over the labels that at least one sample has."""
        scores, labelled = (np.stack(column) for column in zip(*observed, strict=True))
        present = np.flatnonzero(labelled.any(0))
        if not len(present):
            raise ValueError("no sample has a label, so that there is no mAP")
        return float(np.array([_average_precision(scores[:, column], labelled[:, column] > 0) for column in present]).mean())


def _average_precision(scores: np.ndarray, has: np.ndarray) -> float:
    """Return the mean, over the samples that have a label, of the share of such samples among those with at least their score."""
    order = np.argsort(-scores, kind="stable")
    ranked, has = -scores[order], has[order]
    last = np.searchsorted(ranked, ranked, side="right")
    return float((np.cumsum(has)[last - 1].astype(np.float64) / last.astype(np.float64))[has].mean())


class ReadFigures:
    """One or several figures a sample: `output` and target (figures,) float32."""

    has_masks = False
    sentence = "the output has the predicted figures, in the unit of the targets"

    def columns(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the figures."""
        return tuple(classes)

    def predict(self, output: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
        """Return each figure."""
        return {"values": dict(zip(classes, output.tolist(), strict=True))}

    def line(self, prediction: Mapping[str, Any]) -> tuple[str, ...]:
        """Return each figure."""
        return tuple(f"{value:.6g}" for value in prediction["values"].values())

    def target(self, cells: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
        """Return the figures of the columns."""
        return numbers_of(cells, classes)

    def observe(self, output: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the figures that are found and those that are right."""
        return output.astype(np.float32), target

    def figure(self, observed: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
        """Return RMSE over all samples and figures."""
        found, right = (np.stack(column) for column in zip(*observed, strict=True))
        return float(np.sqrt(np.square(found.astype(np.float64) - right).mean(1).mean()))


class ReadMasks:
    """A class for each pixel: `output` (classes, h, w) float32 before the softmax, a target (h, w) uint8; 255 does not count."""

    has_masks = True
    sentence = "the output has a logit for each class at each pixel (classes, height, width); the largest one is the pixel's class"

    def columns(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Return the classes."""
        return tuple(classes)

    def predict(self, output: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
        """Return the share of the pixels, 0-1, that each class has."""
        pixels = np.bincount(self.mask(output).ravel(), minlength=len(classes))
        return {"shares": dict(zip(classes, (pixels / pixels.sum()).tolist(), strict=True))}

    def line(self, prediction: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the share of each class."""
        return tuple(f"{share:.2%}" for share in prediction["shares"].values())

    def mask(self, output: np.ndarray) -> np.ndarray:
        """Return the class of each pixel, (h, w) uint8."""
        return np.asarray(output.argmax(0), dtype=np.uint8)

    def target(self, cells: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
        """Refuse a sample whose mask is not read from a file."""
        raise ValueError(f"no column `{MASK}` with the path of its mask")

    def observe(self, output: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of each class in both masks, and in at least one, (classes,) int64 each."""
        counted = target != UNCOUNTED
        named, wanted = output.argmax(0)[counted], target[counted].astype(np.int64)
        both = np.bincount(wanted[named == wanted], minlength=len(output))
        return both, np.bincount(named, minlength=len(output)) + np.bincount(wanted, minlength=len(output)) - both

    def figure(self, observed: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
        """Return mIoU, 0-1, over the classes that at least one mask has."""
        both, each = (np.stack(column).sum(0) for column in zip(*observed, strict=True))
        return float(np.nanmean(np.where(each > 0, both / np.maximum(each, 1), np.nan)))


def require_named(mask: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return a mask (h, w) if each of its pixels has one of the classes, or `UNCOUNTED`.

    Raises:
        ValueError: A pixel has another number.
    """
    beyond = mask[(mask >= len(classes)) & (mask != UNCOUNTED)]
    if beyond.size:
        raise ValueError(f"class {beyond.max()} in a mask; the package has {len(classes)} classes from 0, and {UNCOUNTED} where a pixel does not count")
    return mask


def numbers_of(cells: Mapping[str, str], classes: Sequence[str]) -> np.ndarray:
    """Return the numbers of the columns that are named as the classes, (classes,) float32.

    Raises:
        ValueError: A column is missing, or holds no number.
    """
    missing = [name for name in classes if name not in cells]
    if missing:
        raise ValueError(f"no column `{missing[0]}`: there is one for each of {', '.join(classes)}")
    found = np.array([float(cells[name]) for name in classes], dtype=np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"{', '.join(map(str, found))}: the numbers are finite")
    return found


READINGS: dict[str, Reading] = {
    "classification": ReadClasses(),
    "multi_label": ReadLabels(),
    "regression": ReadFigures(),
    "segmentation": ReadMasks(),
}
"""Readings by the name of the task. A task of the user's own has none: its outputs are printed as they are."""
