"""Computes a package's figure again, on samples with targets. It needs NumPy and Pillow alone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bonsai.stages.data.pixels import read_mask
from bonsai.stages.delivery.predict.engines import Refused, shown
from bonsai.stages.delivery.predict.network import Network, mark_of
from bonsai.stages.delivery.predict.samples import CHECKED, UNREADABLE, Sample, read_inputs
from bonsai.stages.tasks.predicting import MASK, READINGS, Reading, require_named


class Figure(NamedTuple):
    """A figure beside the package's.

    Attributes:
        value: The task's metric on the samples.
        samples: Number of them.
        packaged: The package's value.
        same: Whether they are the package's test samples.
        same_program: Whether the program that runs the network is the one that the package's figure was measured with.
    """

    value: float
    samples: int
    packaged: float
    same: bool
    same_program: bool

    @property
    def equal(self) -> bool:
        """Whether both are equal to the last digit."""
        return self.value == self.packaged

    @property
    def contradicts(self) -> bool:
        """Whether the package's figure is wrong here: it should be equal, and is not."""
        return self.same and self.same_program and not self.equal


def compute(network: Network, given: Sequence[Sample]) -> Figure:
    """Compute the package's metric on its test samples, if all of them are among the given ones; else on all given ones.

    Samples run one by one: in a batch, outputs may be rounded differently.

    Raises:
        Refused: The task has no figure here, or a file cannot be read, or has several samples or no target.
    """
    reading = network.reading
    if reading is None:
        task = network.manifest["recipe"].get("task")
        raise Refused(2, "--check: the package's task is the user's own", given=task, allowed=", ".join(READINGS), fix="compute its figure by its own code")
    test = _find_test(network, reading, given)
    samples = test or given
    observed = []
    for sample in samples:
        inputs, target = _read(network, reading, sample)
        observed.append(reading.observe(network.run(inputs[None])[0], target))
    try:
        value = reading.figure(observed)
    except ValueError as error:
        raise Refused(2, "--check: these samples have no figure", given=f"{len(samples)} samples ({error})", allowed="samples", fix=CHECKED) from error
    said = accuracy_of(network.manifest)
    packaged = said[network.manifest["metric"]["name"]]
    return Figure(value, len(samples), packaged, same=bool(test), same_program=said["measured_by"] == network.program)


def accuracy_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a manifest says of the accuracy of the engine that ships."""
    (accuracy,) = (row["accuracy"] for row in manifest["metrics"] if row["shipped"])
    return dict(accuracy)


def _find_test(network: Network, reading: Reading, given: Sequence[Sample]) -> list[Sample]:
    """Return the package's test samples in their order; none if one of them is not there, or has another target."""
    places: dict[str, list[Sample]] = {}
    for sample in given:
        places.setdefault(mark_of(*_read(network, reading, sample)), []).append(sample)
    found = [places[mark].pop(0) for mark in network.test_samples if places.get(mark)]
    return found if len(found) == len(network.test_samples) else []


def _read(network: Network, reading: Reading, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Return what the network takes of a file with one sample, and its target in the type that Bonsai stores."""
    found = read_inputs(sample.path, network.preprocess)
    if len(found) != 1:
        raise Refused(2, f"{shown(sample.path)}: several samples", given=len(found), allowed="one sample a file", fix=CHECKED)
    try:
        if reading.has_masks and MASK in sample.cells:
            return found[0], require_named(read_mask(sample.cells[MASK], network.preprocess), network.manifest["classes"])
        return found[0], reading.target(sample.cells, network.manifest["classes"])
    except UNREADABLE as error:
        raise Refused(2, f"{shown(sample.path)}: no target", given=error, allowed="a target for each sample", fix=CHECKED) from error
