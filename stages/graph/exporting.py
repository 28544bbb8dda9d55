"""From a torch network to a simplified ONNX file, with every step checked."""

import copy
import logging
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from torch import nn

from bonsai.stages.errors import BuildError
from bonsai.stages.graph.audit import audit_graph, require_dialect, require_folded, require_same
from bonsai.stages.graph.names import INPUT
from bonsai.stages.graph.onnx_graph import Dialect, FloatType
from bonsai.stages.graph.program import any_batch, export_program
from bonsai.stages.graph.refusals import explain_refusal
from bonsai.stages.graph.shielding import shield_float_layers
from bonsai.stages.graph.simplifying import simplify
from bonsai.stages.graph.untraceable import Untraceable
from bonsai.stages.memory import blame_memory
from bonsai.stages.tasks.task import TensorSpec
from bonsai.stages.training.progress import say

OUTPUT = TensorSpec("output", ())
"""Output of a network whose task is not known."""
WRAPPERS = re.compile(r"^(halved\.|joining\.)+")
"""Prefixes that `HalfNetwork` and `Separated` add to parameter names. Files have the names without them."""


class Written(NamedTuple):
    """What became of an exported file.

    Attributes:
        audit: Counts of its nodes.
        not_simplified: Why onnxsim's result was rejected and the exporter's file kept; empty where it was not.
    """

    audit: dict[str, int]
    not_simplified: str = ""


def write_graph(
    network: nn.Module,
    image_shape: tuple[int, ...],
    file: Path,
    *,
    opset: int,
    batch: int | None,
    dialect: Dialect,
    float_type: FloatType,
    quantised: int = 0,
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[TensorSpec] = (OUTPUT,),
    apart: bool = False,
) -> Written:
    """Export, simplify and check a network.

    Args:
        network: Float network, or the export form of a quantised one.
        image_shape: (channels, height, width).
        file: The .onnx file to write.
        opset: Version of the default operator set, 18-20.
        batch: Images that the file takes; None for any number.
        dialect: What the file must be in the end.
        float_type: Number format of what is not quantised; input and outputs stay FP32.
        quantised: How many layers of a quantised network are INT8, as the file must hold them.
        inputs: What the network takes, where that is another name than `input`, or several inputs: it takes them as a tuple, too.
        outputs: What the network returns; of several it returns all, flattened and joined.
        apart: Whether it returns a tuple of them instead.

    Raises:
        BuildError: The exporter refuses the network, or a check fails.
    """
    raw = file.with_name("exported.onnx")
    whole = HalfNetwork(network) if float_type == "fp16" else network
    names = [output.name for output in outputs]
    export_onnx(Separated(whole, outputs) if len(outputs) > 1 and not apart else whole, image_shape, raw, opset, names, inputs)
    written = simplify_onnx(raw, file, batch)
    raw.unlink()
    if dialect == "float":
        return written
    model = onnx.load(file)
    if dialect == "ort" and shield_float_layers(model):
        onnx.save(model, file)
        require_valid(file)
    require_dialect(model, dialect, quantised)
    return written._replace(audit=audit_graph(model))


class HalfNetwork(nn.Module):
    """A network that computes in FP16 between an FP32 input and an FP32 output.

    Args:
        network: Network in FP32; a copy of it is converted to FP16.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.halved = copy.deepcopy(network).half()

    def forward(self, x: Any) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Map (n, c, h, w) float32, or a tuple of inputs, to outputs (n, ...) float32."""
        found = self.halved(tuple(each.half() for each in x) if isinstance(x, tuple) else x.half())
        return tuple(output.float() for output in found) if isinstance(found, tuple) else found.float()


class Separated(nn.Module):
    """A network that returns its outputs one by one.

    Args:
        network: Returns them flattened and joined, (n, total).
        outputs: Their shapes.
    """

    def __init__(self, network: nn.Module, outputs: Sequence[TensorSpec]) -> None:
        super().__init__()
        self.joining = network
        self._shapes = [tuple(output.shape) for output in outputs]

    def forward(self, x: Any) -> tuple[torch.Tensor, ...]:
        """Map (n, c, h, w), or a tuple of inputs, to outputs (n, ...)."""
        parts = self.joining(x).split([math.prod(shape) for shape in self._shapes], dim=1)
        return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, self._shapes, strict=True))


def export_onnx(
    network: nn.Module,
    image_shape: tuple[int, ...],
    file: Path,
    opset: int,
    outputs: Sequence[str] = (OUTPUT.name,),
    inputs: Sequence[TensorSpec] = (),
) -> None:
    """Export in evaluation mode with the dynamo exporter, for any number of images.

    Args:
        network: Float network, or the export form of a quantised one.
        image_shape: (channels, height, width).
        file: The .onnx file to write.
        opset: Version of the default operator set, 18-23.
        outputs: Names of what the network returns.
        inputs: As for `write_graph`.

    Raises:
        BuildError: The exporter refuses the network, or what it computes depends on the number of images.
    """
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # channels-last pooling exports as a gather
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    traced, parts = None, tuple(each.shape for each in inputs) if len(inputs) > 1 else ()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = export_program(network.eval(), image_shape, parts)
            program = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=opset,
                input_names=[each.name for each in inputs] or [INPUT],
                output_names=list(outputs),
                dynamic_shapes=any_batch(parts),
                verbose=False,
            )
    except Untraceable as error:
        raise BuildError(f"torch.onnx cannot export {type(network).__name__}: {error}") from error
    except Exception as error:  # what the exporter raises on the way through a network's own operators shares no base
        blame_memory(error)
        raise BuildError(f"torch.onnx cannot export {type(network).__name__}: {explain_refusal(error, traced)}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
        node.input[:] = [WRAPPERS.sub("", name) for name in node.input]
    for tensor in model.graph.initializer:
        tensor.name = WRAPPERS.sub("", tensor.name)
    del model.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.save(model, file)


def simplify_onnx(source: Path, file: Path, batch: int | None) -> Written:
    """Simplify `source` with onnxsim and check the result by its path; where it is not the same network any more, keep `source`.

    Args:
        source: The exporter's file, of a dynamic batch.
        file: The file to write.
        batch: Images that the file is to take; None for any number.

    Raises:
        BuildError: The checker refuses the file, or a BatchNorm is left in it.
    """
    model = onnx.load(source)
    if batch is not None:
        fix_batch(model, batch)
    before, problem = audit_graph(model), ""
    try:
        simplified = simplify(model, file.parent)
        require_same(before, audit_graph(simplified))
    except BuildError as error:
        simplified, problem = model, str(error)
        say(f"onnxsim is not used: {problem}")
    require_folded(simplified)
    del simplified.metadata_props[:]
    onnx.save(simplified, file)
    require_valid(file)
    return Written(audit_graph(simplified), problem)


def require_valid(file: Path) -> None:
    """Check a file by its path, types and shapes included.

    Raises:
        BuildError: The ONNX checker refuses it.
    """
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"the ONNX checker refuses the exported graph: {error}") from error


def fix_batch(model: onnx.ModelProto, batch: int) -> None:
    """Write a number of images in place of the dynamic batch; shapes that follow from it are inferred anew."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]


def set_metadata(file: Path, metadata: dict[str, str]) -> None:
    """Write metadata properties into an ONNX file; done last, since a simplifier adds its own."""
    model = onnx.load(file)
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.save(model, file)
