"""Stage `export_untrained`: an untrained network of given widths as an ONNX file.

Latency depends on widths, not on weights (trained against random: ratio 0.999-1.005), so candidates
are timed before anything is trained for them.
"""

from functools import lru_cache
from pathlib import Path

import onnx
import torch
from torch import nn

from bonsai.stages.backends.reference import require_runs
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.exporting import write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.narrowing import CannotNarrow, narrow_graph, require_channels
from bonsai.stages.graph.onnx_graph import Dialect, FloatType, OnnxGraph
from bonsai.stages.graph.probes import COUNT, probe_inputs, save_outputs
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.networks.edits.fusing import fuse
from bonsai.stages.networks.edits.records import Fuse, Quantizers
from bonsai.stages.networks.packed_inputs import input_specs, pack_again
from bonsai.stages.networks.registry import build_network, to_channels_last
from bonsai.stages.networks.several_outputs import outputs_as_they_are
from bonsai.stages.pruning.blocks import groups_with_blocks
from bonsai.stages.pruning.fused_groups import Deployed, deployed_form
from bonsai.stages.pruning.groups import Group, WidthPlan, first_channels
from bonsai.stages.pruning.surgery import cut
from bonsai.stages.quantization.calibrate import calibrate
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.quantization.insert import insert_quantizers
from bonsai.stages.quantization.keeping import layers_to_keep
from bonsai.stages.selection.operator_records import Operator, count_macs_at, count_weights_at, weight_channels
from bonsai.stages.selection.operators import list_operators
from bonsai.stages.store.store import stage

IMAGES = 16
"""Random images that BatchNorms and quantisers of an untrained network see."""


def figures_of(graph: OnnxGraph) -> str:
    """Return how large the network is, in a few words."""
    return f"untrained, {graph.parameters / 1e3:.0f} k parameters"


@stage(version=8, tools=("torch", "torch-pruning", "onnx", "onnxscript", "onnxsim"), figures=figures_of)
def export_untrained(
    out_dir: Path,
    model: ModelConfig,
    image_shape: tuple[int, ...],
    num_classes: int,
    plan: WidthPlan,
    dialect: Dialect,
    float_type: FloatType,
    opset: int,
    dense: OnnxGraph | None,
    keep_float: tuple[str, ...] = (),
    batch: int | None = None,
) -> OnnxGraph:
    """Write a network of the planned widths with its initial weights, in the form that a trained one is exported in: fused, where it has branches.

    Args:
        out_dir: Receives ``model.onnx``, and ``probes.safetensors`` with torch's outputs where the network was exported.
        model: The network.
        image_shape: (channels, height, width).
        num_classes: Number of classes.
        plan: Channels to keep per group.
        dialect: Form of the Q/DQ nodes.
        float_type: Number format of what is not quantised.
        opset: Version of the operator set.
        dense: The dense network's untrained export, whose weights are then shortened instead of exporting a network anew, which
            takes a fiftieth of the time; where that cannot be done the network is exported. None for the dense one itself.
        keep_float: Globs over the layers that the recipe leaves in float.
        batch: Images that the file takes; None for any number.
    """
    groups, deployed, operators = _dense(model.identity(), model.model_dump_json(), image_shape, num_classes)
    widths = {group.name: group.width for group in groups} | plan.widths
    audit = None
    if dense is not None:
        try:
            narrowed = narrow_graph(onnx.load(dense.folder / MODEL), deployed.network, deployed.groups, widths)
            require_channels(narrowed, weight_channels(operators, widths))
            onnx.save(narrowed, out_dir / MODEL)
            require_runs(out_dir / MODEL, image_shape)
            audit = dense.audit
        except (CannotNarrow, BuildError):
            audit = None  # exported below
    if audit is None:
        kept = layers_to_keep(deployed.network, keep_float, image_shape)
        quantizers = None if dialect == "float" else Quantizers(dialect=dialect, weight_bits=8, kept_float=kept)
        audit = _export(out_dir / MODEL, model, image_shape, num_classes, groups, plan, deployed.edit, quantizers, float_type, opset, batch)
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
        fused=deployed.edit is not None,
    )


@lru_cache(maxsize=1)
def _dense(identity: str, model: str, image_shape: tuple[int, ...], num_classes: int) -> tuple[tuple[Group, ...], Deployed, tuple[Operator, ...]]:
    """Return the dense network's groups, the network fused, and its operators; kept, since a target's many candidates are all cut from one network."""
    network = build_network(ModelConfig.model_validate_json(model), image_shape, num_classes)
    groups = groups_with_blocks(network, image_shape)
    deployed = deployed_form(network, groups, image_shape)
    return groups, deployed, list_operators(deployed.network, deployed.groups, image_shape)


def _export(
    file: Path,
    model: ModelConfig,
    image_shape: tuple[int, ...],
    num_classes: int,
    groups: tuple[Group, ...],
    plan: WidthPlan,
    fusion: Fuse | None,
    quantizers: Quantizers | None,
    float_type: FloatType,
    opset: int,
    batch: int | None,
) -> dict[str, int]:
    network = build_network(model, image_shape, num_classes)
    if plan.widths:
        edit = cut(network, groups, first_channels(plan.widths))
        fusion = fusion and Fuse(modules=tuple(name for name in fusion.modules if not edit.drops(name)))
    to_channels_last(network)
    inputs = input_specs(network)
    images = torch.from_numpy(probe_inputs([each.shape for each in inputs] or [image_shape], IMAGES))
    _vary(network, images)
    if fusion is not None:
        fuse(network, fusion)
        to_channels_last(network)
    exported, quantised = network, 0
    dialect: Dialect = "float" if quantizers is None else quantizers.dialect
    if quantizers is not None:
        graph = insert_quantizers(network, image_shape, quantizers)
        network = pack_again(graph)
        to_channels_last(network)
        calibrate(network, [images.clone()])
        graph = to_export_form(graph, quantizers.dialect, float_type)
        exported, quantised = pack_again(graph), count_quantised(graph)
    written = write_graph(exported, image_shape, file, opset=opset, batch=batch, dialect=dialect, float_type=float_type, quantised=quantised, inputs=inputs)
    with torch.no_grad():
        save_outputs(file.parent, network.eval()(images[:COUNT].clone()).numpy())
    return written.audit


@torch.no_grad()
def _vary(network: nn.Module, images: torch.Tensor) -> None:
    """Give a new network random parameters and fitting BatchNorm statistics, in place.

    Constant parameters of a new network, such as zero biases, would hide a wrong export, and the exporter merges equal tensors. With BatchNorm
    statistics that do not fit, values would grow from layer to layer until FP16 overflows, and the outputs would hardly differ between images.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        value = float(parameter.flatten()[0]) if parameter.numel() > 1 else 0.0
        if parameter.numel() > 1 and bool((parameter == value).all()):
            factors = torch.empty_like(parameter).uniform_(0.5, 1.5, generator=generator)
            parameter.copy_(value * factors if value else (factors - 1) / 5)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta, training = [norm.momentum for norm in norms], {module: module.training for module in network.modules()}
    for norm in norms:
        norm.momentum = 1.0  # the statistics of this one batch
    with torch.random.fork_rng(devices=[]), outputs_as_they_are():  # in training it may return others
        torch.manual_seed(0)
        network.train()(images.clone())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in training.items():
        module.training = mode
