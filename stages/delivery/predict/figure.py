"""Computes a package's figure again, on samples with targets. It needs NumPy and Pillow alone."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bonsai.stages.data.pixels import read_mask
from bonsai.stages.delivery.predict.engines import Refused, shown
from bonsai.stages.delivery.predict.network import Network, mark_of
from bonsai.stages.delivery.predict.samples import CHECKED, UNREADABLE, Sample, read_inputs
from bonsai.stages.tasks.predicting import MASK, READINGS, Reading


class Figure(NamedTuple):
    """A figure beside the package's.

    Attributes:
        value: The task's metric on the samples.
        samples: Number of them.
        packaged: The package's value.
        same: Whether the samples and their targets are the package's test part.
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


def choose_test(network: Network, samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return the package's test samples in their order, if all of them are among the given ones; else the given ones.

    Raises:
        Refused: A file cannot be read, or has several samples.
    """
    places: dict[str, list[Sample]] = {}
    for sample in samples:
        places.setdefault(mark_of(_inputs(network, sample)), []).append(sample)
    chosen = [places[mark].pop(0) for mark in network.test_samples if places.get(mark)]
    return chosen if chosen and len(chosen) == len(network.test_samples) else samples


def compute(network: Network, samples: Sequence[Sample]) -> Figure:
    """Compute the package's metric on samples with targets, one by one: in a batch, outputs may be rounded differently.

    Raises:
        Refused: A file cannot be read, or has several samples or no target.
    """
    reading = network.reading
    if reading is None:
        task = network.manifest["recipe"].get("task")
        raise Refused(2, "--check: the package's task is the user's own", given=task, allowed=", ".join(READINGS), fix="compute its figure by its own code")
    shape = (len(samples), network.preprocess.channels, *network.preprocess.size)
    digest = hashlib.sha256(repr((shape, "torch.float32")).encode())  # as the manifest's `test_digest` is made: inputs, then targets
    observed, targets = [], []
    for sample in samples:
        inputs = _inputs(network, sample)
        targets.append(_target(network, reading, sample))
        digest.update(inputs.tobytes())
        observed.append(reading.observe(network.run(inputs[None])[0], targets[-1]))
    try:
        digest.update(np.stack(targets).tobytes())
        value = reading.figure(observed)
    except ValueError as error:
        raise Refused(2, "--check: these samples have no figure", given=f"{len(samples)} samples ({error})", allowed="samples", fix=CHECKED) from error
    said = accuracy_of(network.manifest)
    packaged = said[network.manifest["metric"]["name"]]
    same = digest.hexdigest() == network.manifest["test_digest"]
    return Figure(value, len(samples), packaged, same, said["measured_by"] == network.program)


def accuracy_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a manifest says of the accuracy of the engine that ships."""
    (accuracy,) = (row["accuracy"] for row in manifest["metrics"] if row["shipped"])
    return dict(accuracy)


def _inputs(network: Network, sample: Sample) -> np.ndarray:
    """Return what the network takes of a file with one sample."""
    found = read_inputs(sample.path, network.preprocess)
    if len(found) != 1:
        raise Refused(2, f"{shown(sample.path)}: several samples", given=len(found), allowed="one sample a file", fix=CHECKED)
    return found[0]


def _target(network: Network, reading: Reading, sample: Sample) -> np.ndarray:
    """Return the target of a sample, in the type that Bonsai stores."""
    try:
        if reading.has_masks and MASK in sample.cells:
            return read_mask(sample.cells[MASK], network.preprocess)
        return reading.target(sample.cells, network.manifest["classes"])
    except UNREADABLE as error:
        raise Refused(2, f"{shown(sample.path)}: no target", given=error, allowed="a target for each sample", fix=CHECKED) from error
