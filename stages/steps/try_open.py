"""Stage `try_open`: whether ONNX Runtime opens and runs an untrained network's file, before anything is trained."""

import math
from pathlib import Path

from bonsai.stages.backends.reference import try_graph
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import OnnxGraph
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.store import stage


class Opened(Artifact):
    """A file that ONNX Runtime opened; no files of its own.

    Attributes:
        difference: Of its outputs from torch's, over how much these differ between images; None where the numbers overflow.
    """

    difference: float | None


def figures_of(opened: Opened) -> str:
    """Return how close ONNX Runtime came to torch, in a few words."""
    return "overflows untrained" if opened.difference is None else f"differs from torch by {opened.difference:.2g} of the spread"


@stage(version=1, figures=figures_of)
def try_open(out_dir: Path, graph: OnnxGraph, runtime: str) -> Opened:
    """Open a file in ONNX Runtime on this CPU, in a process of its own, and run it on one image and on several.

    ONNX Runtime judges every export, whatever runtime the engine is for: what it cannot open cannot be shipped.

    Args:
        out_dir: Stays empty.
        graph: ONNX file of an untrained network, from `export_untrained`.
        runtime: Version of ONNX Runtime and the CPU, which the result may depend on.

    Raises:
        BuildError: ONNX Runtime refuses the file or ends its process, or the outputs are others than torch's.
    """
    difference = try_graph(graph.folder / MODEL, "int8" if graph.dialect != "float" else graph.float_type, graph.image_shape)
    return Opened(folder=out_dir, difference=None if math.isnan(difference) else difference)
