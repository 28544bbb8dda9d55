"""Stage `sketch`: an untrained network of given widths as an ONNX file.

Latency depends on widths, not on weights (trained against random: ratio 0.999-1.005), so candidates
are timed before anything is trained for them.
"""

from pathlib import Path

import torch
from torch import fx, nn

from stages.artifacts import Dialect, OnnxGraph, QuantizerState
from stages.checkpoints import build
from stages.graph.exporting import MODEL, write_graph
from stages.models.config import ModelConfig
from stages.models.counting import count_macs, count_parameters
from stages.pruning.groups import WidthPlan, first_channels
from stages.quantization.calibrate import calibrate
from stages.quantization.export_form import to_export_form
from stages.store import stage


@stage(version=1, tools=("torch", "torch-pruning", "onnx", "onnxscript", "onnxsim"))
def sketch(
    out_dir: Path,
    model: ModelConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    plan: WidthPlan,
    dialect: Dialect,
    opset: int,
) -> OnnxGraph:
    """Export a network of the planned widths with its initial weights, through the same path as a trained one."""
    quantizers = None if dialect == "float" else QuantizerState(dialect=dialect, weight_bits=8)
    network = build(model, image_shape, num_classes, kept=first_channels(plan.widths), quantizers=quantizers)
    exported: nn.Module = network
    if dialect != "float":
        assert isinstance(network, fx.GraphModule)
        calibrate(network, [torch.randn(16, *image_shape, generator=torch.Generator().manual_seed(0))])
        exported = to_export_form(network, dialect)
    audit = write_graph(exported, image_shape, out_dir / MODEL, opset=opset, dialect=dialect)
    return OnnxGraph(
        folder=out_dir,
        dialect=dialect,
        opset=opset,
        image_shape=image_shape,
        audit=audit,
        parity={},
        parameters=count_parameters(network),
        macs=count_macs(network, image_shape),
    )
