"""What a run says before anyone wonders at its result: accuracies that the data cannot show."""

from collections.abc import Sequence

from profiles.schema import HardwareProfile
from stages.artifacts import Checkpoint, Dataset
from stages.intervals import images_to_prove, least_provable_drop
from stages.training.batches import load_split
from stages.training.progress import say

LEARNT = 0.25
"""Share of the way from the largest class's share to 1 that the dense network's accuracy must come, or it is told."""


def warn_of_few(test_images: int, profiles: Sequence[HardwareProfile]) -> None:
    """Say which accuracy gates so few test images cannot prove, unless the engine is better than the dense network."""
    least = least_provable_drop(test_images)
    for profile in profiles:
        asked = profile.gates.max_accuracy_drop
        if asked < least:
            needed = f"{images_to_prove(asked)} are needed" if asked else "no number does"
            say(f"warning: {profile.name}: {test_images} test images prove no accuracy drop below {least:.3f}, asked is {asked:g}: {needed}")


def warn_of_chance(dense: Checkpoint, dataset: Dataset) -> None:
    """Say where the dense network has learnt next to nothing: its engine then meets any accuracy gate."""
    labels = load_split(dataset, "validation")[1]
    largest = int(labels.bincount().max()) / len(labels)
    top1 = dense.history[-1].validation_top1
    if top1 < largest + LEARNT * (1 - largest):
        known = f"always naming the largest class gives {largest:.2%}"
        say(f"warning: the dense network's validation top-1 is {top1:.2%}, and {known}: train longer, or check the data")
