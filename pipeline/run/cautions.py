"""What a run says before anyone wonders at its result: accuracies that the data cannot show."""

from collections.abc import Sequence

from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.measurement.intervals import images_to_prove, least_provable_drop, wilson_of_share
from bonsai.stages.measurement.verdicts import doubt_about
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.training.batches import load_split
from bonsai.stages.training.progress import say


def warn_of_few(test_images: int, profiles: Sequence[HardwareProfile]) -> None:
    """Say which accuracy gates so few test images cannot prove: a drop, unless the engine is better than the dense network; a top-1, whatever it is."""
    least, most = least_provable_drop(test_images), wilson_of_share(1, test_images)[0]
    for profile in profiles:
        asked, top1 = profile.gates.max_drop, profile.gates.min_metric
        if asked < least:
            needed = f"{images_to_prove(asked)} are needed" if asked else "no number does"
            say(f"warning: {profile.name}: {test_images} test images prove no accuracy drop below {least:.3f}, asked is {asked:g}: {needed}")
        if top1 is not None and top1 > most:
            say(f"warning: {profile.name}: {test_images} test images prove no top-1 above {most:.3f}, asked is {top1:g}")


def warn_of_chance(dense: Checkpoint, dataset: Dataset) -> None:
    """Say where the dense network has learnt next to nothing: no accuracy gate is then decided."""
    doubt = doubt_about(dense.history[-1].validation_top1, load_split(dataset, "validation")[1].numpy(), "validation")
    if doubt:
        say(f"warning: {doubt}")
