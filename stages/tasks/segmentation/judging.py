"""How a segmentation is judged: by mIoU, the mean over the classes of intersection over union of all pixels of a part."""

from collections.abc import Mapping, Sequence

import numpy as np

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.tasks.intervals import least_provable_fall, mean_interval, samples_for, typical_loss
from bonsai.stages.tasks.metric import Metric
from bonsai.stages.tasks.pictures import beside, colour_of, grey_or_colour, painted
from bonsai.stages.tasks.results_table import Picture, ResultsTable, percent
from bonsai.stages.tasks.stored import Kinds, pack, unpack
from bonsai.stages.tasks.task import Arrays, Baseline, DataSpec, Difference, Interval, Provable, Statistics, TensorSpec

IGNORED = 255
"""Class of the pixels that neither loss nor metric sees: as in `stages/data/pixels.py`, which needs Pillow."""
INTERSECTION, UNION = "intersection", "union"
"""Statistics: pixels of each class in both masks, and in at least one, (n, classes) int64 each."""
KINDS: Kinds = {INTERSECTION: ("int64", 2), UNION: ("int64", 2)}


class Segmentation:
    """A class for each pixel; `found` are logits (n, classes, h, w) float32, `targets` (n, h, w) of class indices, 255 where a pixel does not count."""

    metric = Metric(name="miou", label="mIoU", unit="%", direction="higher", best=1.0)
    learning = "bonsai.stages.tasks.segmentation.learning:SegmentationLearning"
    moves_with_image = True

    def outputs(self, spec: DataSpec) -> tuple[TensorSpec, ...]:
        """Return the maps of logits."""
        return (TensorSpec("logits", (spec.num_classes, *spec.image_shape[1:]), labelled=True),)

    def check_targets(self, targets: np.ndarray, spec: DataSpec, classes: tuple[str, ...]) -> np.ndarray:
        """Return masks as uint8, or int64 for more than 254 classes.

        Raises:
            ConfigError: They are no masks of the images' size, or name classes that are not there.
        """
        allowed = f"(n, {', '.join(map(str, spec.image_shape[1:]))}) of whole numbers: a class for each pixel, counted from 0; {IGNORED} does not count"
        given = f"{targets.dtype} {list(targets.shape)}"
        if targets.ndim != 3 or targets.shape[1:] != tuple(spec.image_shape[1:]):
            fix = "return a mask of its image's size for each image; a channel of masks: masks[:, 0]"
            raise ConfigError(describe("targets are no masks of the images' size", given=given, allowed=allowed, fix=fix))
        if targets.dtype.kind not in "iu":
            fix = "return class indices, such as masks.long(); colours: look up the class of each colour"
            raise ConfigError(describe("masks are no whole numbers", given=given, allowed=allowed, fix=fix))
        named = targets[targets != IGNORED]
        if named.size and (named.min() < 0 or named.max() >= len(classes)):
            given = f"{named.min()} to {named.max()}, and {len(classes)} classes"
            fix = f"count the classes from 0, name every class in `classes`, background too, and write {IGNORED} where a pixel does not count"
            raise ConfigError(describe("masks name classes that are not there", given=given, allowed=f"0 to {len(classes) - 1}, or {IGNORED}", fix=fix))
        if not 2 <= len(classes) < IGNORED:
            fix = "name the background too: two classes for one kind of object"
            raise ConfigError(describe("a segmentation has too few or too many classes", given=len(classes), allowed=f"2 to {IGNORED - 1}", fix=fix))
        return targets.astype(np.uint8)

    def strata(self, targets: np.ndarray) -> np.ndarray | None:
        """Return None: images hold several classes each, and are split at random."""
        return None

    def class_weights(self, targets: np.ndarray, num_classes: int) -> tuple[float, ...]:
        """Return weights that make classes count alike: the square root of the mean number of pixels of a class over the class's own."""
        pixels = np.bincount(targets[targets != IGNORED].astype(np.int64), minlength=num_classes)
        return tuple(float(np.sqrt(pixels.mean() / max(count, 1))) for count in pixels)

    def per_sample(self, found: Arrays, targets: Arrays) -> Statistics:
        """Return the intersection and the union of each class in each image."""
        num_classes, answers, masks = found.shape[1], found.argmax(1), targets.astype(np.int64)
        both, each = (np.zeros((len(found), num_classes), np.int64) for _ in range(2))
        for place, (answer, mask) in enumerate(zip(answers, masks, strict=True)):
            counted = mask != IGNORED
            named, wanted = answer[counted], mask[counted]
            both[place] = np.bincount(wanted[named == wanted], minlength=num_classes)
            each[place] = np.bincount(named, minlength=num_classes) + np.bincount(wanted, minlength=num_classes) - both[place]
        return {INTERSECTION: both, UNION: each}

    def reduce(self, statistics: Statistics) -> float:
        """Return mIoU, 0-1, over the classes that at least one mask of the part has."""
        return float(np.nanmean(iou(statistics)))

    def bounds(self, statistics: Statistics, samples: int | None = None) -> Interval:
        """Return mIoU with its score interval, in which an unseen image may be lost entirely."""
        found, low, high = mean_interval(self.reduce(statistics), _influence(statistics), _weight(statistics), samples)
        return Interval(found, max(low, 0.0), min(high, 1.0))

    def interval(self, before: Statistics, after: Statistics, samples: int | None = None) -> Interval:
        """Return the drop of mIoU on the same images with its score interval, in which an unseen image may be lost or won entirely."""
        drop, low, high = mean_interval(self.reduce(before) - self.reduce(after), _influence(before) - _influence(after), _weight(before), samples)
        return Interval(drop, max(low, -1.0), min(high, 1.0))

    def baseline(self, targets: Arrays) -> Baseline:
        """Return the mIoU of the largest class everywhere."""
        pixels = np.bincount(targets[targets != IGNORED].astype(np.int64))
        return Baseline(float(pixels.max() / pixels.sum() / (pixels > 0).sum()), "always naming the largest class")

    def difference(self, found: Arrays, expected: Arrays) -> Difference:
        """Return how far logits lie from expected ones, and the share of pixels with the same class; NaN where one of them is no number."""
        return Difference.between(found, expected, agreement=float((found.argmax(1) == expected.argmax(1)).mean()))

    def provable(self, targets: Arrays, samples: int, differing: float = 0.0) -> Provable:
        """Return the least drop and the best mIoU that so many images can show, if the classes are spread over them as in these masks."""
        reach = _weight(_perfect(targets))
        return Provable(
            least_provable_fall(reach, samples, differing),
            1 - least_provable_fall(reach, samples),
            "if the dense network's mIoU is near 1 (at half of that, half as much)",
        )

    def samples_to_prove(self, drop: float, targets: Arrays) -> int:
        """Return how many images, all alike before and after, show that an mIoU near 1 fell by no more than `drop`."""
        return samples_for(drop / _weight(_perfect(targets)))

    def tables(self, statistics: Statistics, classes: Sequence[str]) -> tuple[ResultsTable, ...]:
        """Return the IoU of each class, and its colour in the pictures."""
        both, each = statistics[INTERSECTION].sum(0), statistics[UNION].sum(0)
        rows = tuple(
            (name, colour_of(number), percent(share), str(pixels), str(all_))
            for number, (name, share, pixels, all_) in enumerate(zip(classes, iou(statistics), both, each, strict=True))
        )
        return (ResultsTable(caption="IoU by class", headers=("class", "colour in the pictures", "IoU", "pixels right", "pixels in either mask"), rows=rows),)

    def pictures(self, images: np.ndarray, found: Arrays, targets: Arrays) -> tuple[Picture, ...]:
        """Return each image beside its mask and the engine's."""
        masks, answers, title = targets.astype(np.int64), found.argmax(1), "Test image {}: the image, its true mask, the engine's mask"
        return tuple(
            beside([shown, painted(shown, mask, IGNORED), painted(shown, answer, IGNORED)], title.format(number))
            for number, (shown, mask, answer) in enumerate(zip(map(grey_or_colour, images), masks, answers, strict=True), 1)
        )

    def to_tensors(self, dense: Statistics | None, shipped: Statistics) -> dict[str, np.ndarray]:
        """Return intersections and unions of both engines."""
        return pack(dense, shipped)

    def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> tuple[Statistics | None, Statistics]:
        """Return what `to_tensors` was given.

        Raises:
            ValueError: The tensors are others.
        """
        return unpack(tensors, KINDS)


SEGMENTATION = Segmentation()


def iou(statistics: Statistics) -> np.ndarray:
    """Return the IoU of each class over all images, (classes,); NaN where no mask has the class."""
    both, each = statistics[INTERSECTION].sum(0), statistics[UNION].sum(0)
    return np.where(each > 0, both / np.maximum(each, 1), np.nan)


def _perfect(targets: Arrays) -> Statistics:
    """Return the statistics of a network that names every pixel as these masks do."""
    num_classes = int(targets[targets != IGNORED].max(initial=0)) + 1
    pixels = np.stack([np.bincount(mask[mask != IGNORED], minlength=num_classes) for mask in targets])
    return {INTERSECTION: pixels, UNION: pixels}


def _influence(statistics: Statistics) -> np.ndarray:
    """Return how much mIoU rises with the weight of each image, (n,): of each class (I - IoU * U) over the mean of U."""
    shares, each = iou(statistics), statistics[UNION]
    rises = (statistics[INTERSECTION] - np.nan_to_num(shares) * each) / np.maximum(each.mean(0), 1e-12)
    return np.asarray(rises[:, ~np.isnan(shares)].mean(1))


def _weight(statistics: Statistics) -> float:
    """Return by how much mIoU falls with the share of images that are lost entirely."""
    present = statistics[UNION].sum(0) > 0
    held = statistics[INTERSECTION][:, present] / statistics[UNION][:, present].mean(0)
    return typical_loss(held.mean(1))
