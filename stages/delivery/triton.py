"""A package as a model of a Triton model repository: ``NAME/config.pbtxt``, ``NAME/labels.txt``, ``NAME/1/model.plan`` or ``model.onnx``.

The model takes prepared inputs and returns the network's outputs. Comments in the configuration tell a client how to prepare inputs and how to read
outputs. The parameter ``preprocess`` has the former as JSON, the parameter ``task`` names the reading. ``predict.py`` has the functions for both, and the
client calls them; no Python runs in the server.
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Target
from bonsai.stages.delivery.contents import CARD, LABELS, PackageManifest, write_labels
from bonsai.stages.delivery.packed_facts import PackagedOutput
from bonsai.stages.delivery.predict.text import PREDICT
from bonsai.stages.graph.names import INPUT
from bonsai.stages.tasks.predicting import READINGS

CONFIG, VERSION = "config.pbtxt", "1"


class Platform(NamedTuple):
    """How Triton names what runs a model.

    Attributes:
        model: Name under which it looks for the model's file.
        ships_engine: Whether the file is the package's engine, or the portable ONNX file that it was built from.
    """

    name: str
    model: str
    ships_engine: bool


PLATFORMS = {
    # Triton's ONNX Runtime optimises for its own CPU when it loads a model; an engine that was optimised for this one may not run there.
    "onnxruntime": Platform("onnxruntime_onnx", "model.onnx", ships_engine=False),
    "tensorrt": Platform("tensorrt_plan", "model.plan", ships_engine=True),
}
"""Triton's backends by runtime. TensorRT for RTX is missing: Triton links TensorRT, whose engine format is different."""
ACCELERATORS = {"openvino": "cpu_execution_accelerator", "tensorrt": "gpu_execution_accelerator"}
"""Field of Triton's configuration that names an execution provider of ONNX Runtime; that of CUDA is taken on every GPU."""


def require_servable(target: Target) -> None:
    """Check that Triton runs engines of a target's runtime.

    Raises:
        ConfigError: It does not.
    """
    if target.runtime not in PLATFORMS:
        raise ConfigError(
            describe(
                "layout triton: Triton does not run engines of this runtime",
                given=target.runtime,
                allowed=PLATFORMS,
                fix="leave the layout out, or choose a profile of another runtime",
            )
        )


def write_model(package: Path, manifest: PackageManifest, folder: Path) -> None:
    """Write the model's folder, which in a repository must bear the package's name.

    The engine's bytes stay as they are: what Triton must know stands beside them.

    Args:
        package: Folder of a package that was found intact.
        manifest: Its manifest.
        folder: Empty folder for the model.
    """
    platform = PLATFORMS[manifest.engine.runtime]
    (folder / VERSION).mkdir()
    shutil.copyfile(package / (manifest.engine.file if platform.ships_engine else manifest.engine.graph), folder / VERSION / platform.model)
    for name in {CARD, PREDICT} & manifest.files.keys():  # packages of earlier versions have no program
        shutil.copyfile(package / name, folder / name)
    write_labels(folder, manifest)
    (folder / CONFIG).write_text(model_config(manifest), encoding="utf-8")


def model_config(manifest: PackageManifest) -> str:
    """Return the text of ``config.pbtxt``, a ``ModelConfig`` message of Triton."""
    platform, needed, target = PLATFORMS[manifest.engine.runtime], manifest.compatibility, manifest.profile.target
    most = needed.batch[1]
    portable = "ONNX Runtime on any CPU" if target.provider == "cpu" else f"ONNX Runtime with its execution provider {target.provider}"
    lines = [
        f"# {manifest.name}, laid out by Bonsai. Needs {needed.sentence if platform.ships_engine else portable}.",
        *_preparation(manifest),
        *_reading(manifest),
        f"name: {_quoted(manifest.name)}",
        f"platform: {_quoted(platform.name)}",
        f"max_batch_size: {most}",
        f"input [ {{ name: {_quoted(INPUT)} data_type: TYPE_FP32 dims: {list(manifest.engine.image_shape)} }} ]",
        *(_output(tensor) for tensor in manifest.engine_outputs),
        f"instance_group [ {{ count: 1 kind: KIND_{target.device.kind.upper()} }} ]",
    ]
    if most > 1:
        lines.append("dynamic_batching { }")
    if target.provider in ACCELERATORS:
        lines.append(f"optimization {{ execution_accelerators {{ {ACCELERATORS[target.provider]} [ {{ name: {_quoted(target.provider)} }} ] }} }}")
    if not platform.ships_engine:
        lines.append(f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{needed.threads}" }} }}')
    return "\n".join(lines) + "\n"


def _preparation(manifest: PackageManifest) -> list[str]:
    """Return how a client prepares the input; nothing for a package of an earlier version, which does not say it."""
    if manifest.preprocess is None:
        return []
    told = _quoted(manifest.preprocess.model_dump_json())
    return [
        f"# The client prepares the input: {manifest.preprocess.sentence}. `read_inputs` of {PREDICT} does it, given this JSON as a SimpleNamespace.",
        f'parameters {{ key: "preprocess" value {{ string_value: {told} }} }}',
    ]


def _reading(manifest: PackageManifest) -> list[str]:
    """Return how a client reads the outputs; nothing for a package without a program that does it."""
    if PREDICT not in manifest.files:
        return []
    task = f'parameters {{ key: "task" value {{ string_value: {_quoted(manifest.task)} }} }}'
    if manifest.task not in READINGS:
        return [f"# The client reads the outputs: the package's task, {_quoted(manifest.task)}, is its maker's own and says what they are.", task]
    how = f"`READINGS[{_quoted(manifest.task)}].predict(output, classes)` of {PREDICT} does it for one sample, given the lines of {LABELS}"
    return [f"# The client reads the output: {READINGS[manifest.task].sentence}. {how}.", task]


def _output(tensor: PackagedOutput) -> str:
    labels = f" label_filename: {_quoted(LABELS)}" if tensor.labelled else ""
    return f"output [ {{ name: {_quoted(tensor.name)} data_type: TYPE_FP32 dims: {list(tensor.shape)}{labels} }} ]"


def _quoted(text: str) -> str:
    """Return a string of protobuf's text format."""
    return json.dumps(text, ensure_ascii=False)
