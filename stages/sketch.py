"""Stage `sketch`: an untrained network of given widths as an ONNX file.

Latency depends on widths, not on weights (trained against random: ratio 0.999-1.005), so candidates
are timed before anything is trained for them.
"""

from functools import lru_cache
from pathlib import Path

import onnx
import torch
from torch import fx, nn

from stages.artifacts import Dialect, FloatType, OnnxGraph, QuantizerState
from stages.backends.onnxruntime_engine import require_runs
from stages.checkpoints import build
from stages.errors import BuildError
from stages.graph.exporting import MODEL, write_graph
from stages.graph.narrowing import CannotNarrow, narrow_graph, require_channels
from stages.models.config import ModelConfig
from stages.models.registry import build_network
from stages.pruning.groups import Group, WidthPlan, first_channels
from stages.pruning.surgery import find_groups
from stages.quantization.calibrate import calibrate
from stages.quantization.export_form import to_export_form
from stages.quantization.keeping import layers_to_keep
from stages.selection.operators import Operator, count_macs_at, count_weights_at, list_operators, weight_channels
from stages.store import stage


@stage(version=4, tools=("torch", "torch-pruning", "onnx", "onnxscript", "onnxsim"))
def sketch(
    out_dir: Path,
    model: ModelConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    plan: WidthPlan,
    dialect: Dialect,
    float_type: FloatType,
    opset: int,
    pattern: OnnxGraph | None,
    keep_float: tuple[str, ...] = (),
    batch: int | None = None,
) -> OnnxGraph:
    """Write a network of the planned widths with its initial weights, in the form that a trained one is exported in.

    Args:
        out_dir: Receives ``model.onnx``.
        model: The network.
        image_shape: (channels, height, width).
        num_classes: Number of logits.
        plan: Channels to keep per group.
        dialect: Form of the Q/DQ nodes.
        float_type: Number format of what is not quantised.
        opset: Version of the operator set.
        pattern: The dense network's sketch, whose weights are then shortened instead of exporting a network anew, which
            takes a fiftieth of the time; where that cannot be done the network is exported. None for the dense one itself.
        keep_float: Globs over the layers that the recipe leaves in float.
        batch: Images that the file takes; None for any number.
    """
    network, groups, operators = _dense(model.identity(), model.model_dump_json(), image_shape, num_classes)
    widths = {group.name: group.width for group in groups} | plan.widths
    audit = None
    if pattern is not None:
        try:
            narrowed = narrow_graph(onnx.load(pattern.folder / MODEL), network, groups, widths)
            require_channels(narrowed, weight_channels(operators, widths))
            onnx.save(narrowed, out_dir / MODEL)
            require_runs(out_dir / MODEL, image_shape)
            audit = pattern.audit
        except (CannotNarrow, BuildError):
            audit = None  # exported below
    if audit is None:
        quantizers = None if dialect == "float" else QuantizerState(dialect=dialect, weight_bits=8, kept_float=layers_to_keep(network, keep_float))
        audit = _export(out_dir / MODEL, model, image_shape, num_classes, plan, quantizers, float_type, opset, batch)
    return OnnxGraph(
        folder=out_dir,
        dialect=dialect,
        float_type=float_type,
        opset=opset,
        image_shape=image_shape,
        audit=audit,
        parity={},
        parameters=count_weights_at(operators, widths),
        macs=count_macs_at(operators, widths),
    )


@lru_cache(maxsize=1)
def _dense(identity: str, model: str, image_shape: tuple[int, int, int], num_classes: int) -> tuple[nn.Module, tuple[Group, ...], tuple[Operator, ...]]:
    """Return the dense network, its groups and its operators; kept, since a target's many candidates are all cut from one network."""
    network = build_network(ModelConfig.model_validate_json(model), image_shape, num_classes)
    groups = find_groups(network, image_shape)
    return network, groups, list_operators(network, groups, image_shape)


def _export(
    file: Path,
    model: ModelConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    plan: WidthPlan,
    quantizers: QuantizerState | None,
    float_type: FloatType,
    opset: int,
    batch: int | None,
) -> dict[str, int]:
    network = build(model, image_shape, num_classes, kept=first_channels(plan.widths), quantizers=quantizers)
    _vary(network)
    if quantizers is None:
        return write_graph(network, image_shape, file, opset=opset, batch=batch, dialect="float", float_type=float_type).audit
    assert isinstance(network, fx.GraphModule)
    calibrate(network, [torch.randn(16, *image_shape, generator=torch.Generator().manual_seed(0))])
    exported = to_export_form(network, quantizers.dialect, float_type)
    written = write_graph(
        exported, image_shape, file, opset=opset, batch=batch, dialect=quantizers.dialect, float_type=float_type, kept_float=len(quantizers.kept_float)
    )
    return written.audit


def _vary(network: nn.Module) -> None:
    """Give every BatchNorm values of its own: those of a new network are alike, and the exporter merges what is alike."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and module.running_mean is not None and module.running_var is not None:
            for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                values.uniform_(0.5, 1.5, generator=generator)
