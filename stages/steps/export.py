"""Stage `export`: from a checkpoint to a checked ONNX file."""

import json
from pathlib import Path

from torch import fx, nn

from bonsai.stages.backends.reference import open_graph
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.graph.exporting import set_metadata, write_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import Dialect, FloatType, OnnxGraph
from bonsai.stages.graph.parity import compare, require_parity
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import load_network
from bonsai.stages.networks.counting import count_macs, count_parameters
from bonsai.stages.quantization.export_form import count_quantised, to_export_form
from bonsai.stages.store.store import stage
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.tasks.task import DataSpec


def figures_of(graph: OnnxGraph) -> str:
    """Return the form and the size of the file, in a few words."""
    return f"{graph.dialect} {graph.float_type}, {graph.parameters / 1e3:.0f} k parameters, {graph.macs / 1e6:.1f} M MACs"


@stage(version=5, tools=("torch", "onnx", "onnxscript", "onnxsim"), figures=figures_of)
def export(
    out_dir: Path, checkpoint: Checkpoint, dataset: Dataset, config: ExportConfig, dialect: Dialect, float_type: FloatType, batch: int | None
) -> OnnxGraph:
    """Export, simplify, audit, and compare with torch on the validation images, or on as many as fit into memory.

    Args:
        out_dir: Receives ``model.onnx``.
        checkpoint: A float network (`dialect` is ``float``) or a quantised one.
        dataset: Source of the real images.
        config: Opset and limits of the comparison.
        dialect: Form of the Q/DQ nodes.
        float_type: Number format of what is not quantised.
        batch: Images that the file takes; None for any number.

    Raises:
        BuildError: The exporter, the simplifier or a check refuses the graph.
    """
    task = task_named(dataset.task)
    network = load_network(checkpoint).eval()
    exported: nn.Module = network
    quantised = 0
    if dialect != "float":
        assert isinstance(network, fx.GraphModule), "only a quantised checkpoint has a dialect"
        exported = to_export_form(network, dialect, float_type)
        quantised = count_quantised(exported)
    file = out_dir / MODEL
    written = write_graph(
        exported,
        checkpoint.image_shape,
        file,
        opset=config.opset,
        batch=batch,
        dialect=dialect,
        float_type=float_type,
        quantised=quantised,
        outputs=task.outputs(DataSpec(checkpoint.image_shape, checkpoint.num_classes)),
    )
    parity = compare(network, open_graph(out_dir / MODEL), Part(dataset, "validation").some(), task)
    require_parity(parity, config)
    set_metadata(
        out_dir / MODEL,
        {
            "bonsai.checkpoint": checkpoint.digest,
            "bonsai.classes": json.dumps(dataset.classes, ensure_ascii=False),
            "bonsai.dialect": dialect,
            "bonsai.float_type": float_type,
            "bonsai.preprocessing": f"{dataset.preprocess.sentence}; NCHW float32",
        },
    )
    return OnnxGraph(
        folder=out_dir,
        dialect=dialect,
        float_type=float_type,
        opset=config.opset,
        image_shape=checkpoint.image_shape,
        audit=written.audit,
        not_simplified=written.not_simplified,
        parity=parity,
        parameters=count_parameters(network),
        macs=count_macs(network, checkpoint.image_shape),
        fused=checkpoint.fused,
    )
