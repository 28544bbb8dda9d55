"""Opens a package: its manifest and its engine, each compared with ``SHA256SUMS`` before it is used. It needs NumPy and the runtime alone."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from bonsai.stages.delivery.predict.engines import Refused, Run, open_engine, open_portable, shown
from bonsai.stages.tasks.predicting import READINGS, Reading

SUMS, MANIFEST, TEST_SAMPLES = "SHA256SUMS", "manifest.json", "test_samples.txt"
CHANGED = "copy the package again, or let `bonsai run` make it again"


class Network(NamedTuple):
    """The engine of a package, with all that is needed to use it.

    Attributes:
        manifest: ``manifest.json``.
        preprocess: How files become inputs.
        reading: How outputs are read; None for a task of the user's own.
        run: Runs the engine: inputs (n, channels, height, width) float32 to outputs (n, ...) float32.
        program: What runs the network, in the words of the manifest's table of results.
        test_samples: Marks of the package's test samples, in their order (`mark_of`).
    """

    manifest: Mapping[str, Any]
    preprocess: Any
    reading: Reading | None
    run: Run
    program: str
    test_samples: tuple[str, ...]

    def predict(self, inputs: np.ndarray) -> dict[str, Any]:
        """Return the prediction for the inputs of one sample, (channels, height, width) float32."""
        return self.read(self.run(inputs[None])[0])

    def read(self, output: np.ndarray) -> dict[str, Any]:
        """Return the prediction that the output of one sample means; of a task of the user's own the outputs themselves, by name."""
        if self.reading is not None:
            return self.reading.predict(output, self.manifest["classes"])
        outputs = self.manifest["outputs"]
        ends = np.cumsum([math.prod(each["shape"]) for each in outputs])
        parts = np.split(output.ravel(), ends[:-1])
        return {each["name"]: part.reshape(each["shape"]).tolist() for each, part in zip(outputs, parts, strict=True)}


def open_network(package: Path, *, portable: bool = False) -> Network:
    """Open the engine of a package.

    Args:
        package: Folder of the package.
        portable: Whether to run ``model.onnx`` in ONNX Runtime instead.

    Raises:
        Refused: A file was changed, or the engine does not run here.
    """
    sums = _read_sums(package)
    manifest = json.loads(_read_intact(package, MANIFEST, sums))
    engine = manifest["engine"]
    if manifest.get("preprocess") is None:
        raise Refused(2, f"{MANIFEST}: no `preprocess`", given="a package of an earlier Bonsai", allowed="a package with it", fix="run `bonsai run` again")
    content = _read_intact(package, engine["graph" if portable else "file"], sums)
    run = open_portable(content, manifest) if portable else open_engine(content, manifest)
    program = "onnxruntime on the same ONNX file" if portable else "engine"
    reading = READINGS.get(manifest["recipe"].get("task", "classification"))
    marks = tuple(_read_intact(package, TEST_SAMPLES, sums).decode().split())
    return Network(manifest, SimpleNamespace(**manifest["preprocess"]), reading, run, program, marks)


def mark_of(inputs: np.ndarray, target: np.ndarray) -> str:
    """Return what tells a sample from others, wherever its file lies: the first 64 bits of the sha256 of its inputs and its target.

    Args:
        inputs: (channels, ...) float32, as the network takes them.
        target: In the type that the task stores.
    """
    return hashlib.sha256(inputs.tobytes() + target.tobytes()).hexdigest()[:16]


def _read_sums(package: Path) -> dict[str, str]:
    """Return the sha256 of each file of a package, by name."""
    try:
        lines = (package / SUMS).read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise Refused(6, f"{SUMS}: cannot be read", given=error, allowed="the folder of a package", fix=CHANGED) from error


def _read_intact(package: Path, name: str, sums: Mapping[str, str]) -> bytes:
    """Return the bytes of a file of the package, which have its sum.

    Raises:
        Refused: The file is not there, or was changed.
    """
    try:
        content = (package / name).read_bytes()
    except OSError as error:
        raise Refused(6, f"{shown(name)}: cannot be read", given=error, allowed="a package as it was made", fix=CHANGED) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sums.get(name):
        raise Refused(6, f"{shown(name)}: the file was changed", given=digest, allowed=f"{sums.get(name, 'nothing')}, as in {SUMS}", fix=CHANGED)
    return content
