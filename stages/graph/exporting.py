"""From a torch network to a simplified ONNX file, with every step checked."""

import copy
import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from stages.artifacts import Dialect
from stages.errors import BuildError
from stages.graph.audit import audit_graph, require_dialect, require_same
from stages.graph.shielding import shield_float_layers

INPUT, OUTPUT = "input", "logits"
MODEL = "model.onnx"


def write_graph(
    network: nn.Module, image_shape: tuple[int, int, int], file: Path, *, opset: int, dialect: Dialect, float_convolutions: int = 0
) -> dict[str, int]:
    """Export, simplify and check a network; return the audit of the finished file.

    Args:
        network: Float network, or the export form of a quantised one.
        image_shape: (channels, height, width).
        file: The .onnx file to write.
        opset: Version of the default operator set, 18-20.
        dialect: What the file must be in the end.
        float_convolutions: How many convolutions of a quantised network are in float on purpose.

    Raises:
        BuildError: The exporter refuses the network, or a check fails.
    """
    raw = file.with_name("exported.onnx")
    export_onnx(network, image_shape, raw, opset)
    audit = simplify_onnx(raw, file)
    raw.unlink()
    if dialect == "float":
        return audit
    model = onnx.load(file)
    if dialect == "ort" and shield_float_layers(model):
        onnx.save(model, file)
        onnx.checker.check_model(str(file), full_check=True)
    require_dialect(model, dialect, float_convolutions)
    return audit_graph(model)


def export_onnx(network: nn.Module, image_shape: tuple[int, int, int], file: Path, opset: int) -> None:
    """Export in evaluation mode with the dynamo exporter and a dynamic batch.

    Args:
        network: Float network, or the export form of a quantised one.
        image_shape: (channels, height, width).
        file: The .onnx file to write.
        opset: Version of the default operator set, 18-23.

    Raises:
        BuildError: The exporter refuses the network.
    """
    example = torch.zeros(2, *image_shape)  # a batch of 1 would be taken for a constant
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # channels-last pooling exports as a gather
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise BuildError(f"torch.onnx cannot export {type(network).__name__}: {error}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.save(model, file)


def simplify_onnx(source: Path, file: Path) -> dict[str, int]:
    """Simplify `source` with onnxsim, check the result by its path and return its audit.

    Raises:
        BuildError: onnxsim fails, changes Q/DQ nodes or weight types, or the checker refuses the file.
    """
    import onnxsim  # costs a second, and only an export pays it

    model = onnx.load(source)
    before = audit_graph(model)
    simplified, same_outputs = onnxsim.simplify(model)
    if not same_outputs:
        raise BuildError(f"onnxsim changed the outputs of {source.name}")
    after = audit_graph(simplified)
    require_same(before, after)
    del simplified.metadata_props[:]
    onnx.save(simplified, file)
    try:
        onnx.checker.check_model(str(file), full_check=True)
    except onnx.checker.ValidationError as error:
        raise BuildError(f"the ONNX checker refuses the exported graph: {error}") from error
    return after


def set_metadata(file: Path, metadata: dict[str, str]) -> None:
    """Write metadata properties into an ONNX file; done last, since a simplifier adds its own."""
    model = onnx.load(file)
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.save(model, file)
