"""Stage `take_graph`: an ONNX file that was exported outside of the store, such as that of a network in hand. It is known by its content."""

import shutil
from pathlib import Path

from pydantic import Field

from bonsai.profiles.located_yaml import Record
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import Dialect, FloatType, OnnxGraph
from bonsai.stages.store.store import stage


class GraphFile(Record):
    """An exported file.

    Attributes:
        file: Where it is, for as long as the stage runs.
        sha256: Of the file.
        dialect: Form of its Q/DQ nodes.
        float_type: Number format of what is not quantised.
        audit: Counts of its nodes.
        not_simplified: As of `OnnxGraph`.
        fused: As of `OnnxGraph`.
    """

    file: Path = Field(exclude=True)
    sha256: str
    dialect: Dialect
    float_type: FloatType
    opset: int
    image_shape: tuple[int, ...]
    audit: dict[str, int]
    not_simplified: str
    parameters: int
    macs: int
    fused: bool


def figures_of(graph: OnnxGraph) -> str:
    """Return the form and the size of the file, in a few words."""
    return f"{graph.dialect} {graph.float_type}, {graph.parameters / 1e3:.0f} k parameters, {graph.macs / 1e6:.1f} M MACs"


@stage(version=1, figures=figures_of)
def take_graph(out_dir: Path, graph: GraphFile) -> OnnxGraph:
    """Copy the file into the store.

    Args:
        out_dir: Receives ``model.onnx``.
        graph: The file. Whoever exported it has compared it with its network.
    """
    shutil.copyfile(graph.file, out_dir / MODEL)
    return OnnxGraph(folder=out_dir, parity={}, **graph.model_dump(exclude={"file", "sha256"}))
