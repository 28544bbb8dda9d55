"""Stage `compile`: from an ONNX file to an engine of the target's runtime."""

import shutil
from pathlib import Path

from bonsai.profiles.schema import Target
from bonsai.stages.backends.apart import build_engine, try_engine
from bonsai.stages.backends.engine import DeviceInfo, Engine
from bonsai.stages.backends.registry import backend_of, graph_form
from bonsai.stages.backends.tensorrt_build import TIMING_CACHE
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import OnnxGraph
from bonsai.stages.graph.probes import PROBES
from bonsai.stages.store.artifact import sha256_file
from bonsai.stages.store.store import stage


@stage(version=3)
def compile(out_dir: Path, graph: OnnxGraph, target: Target, info: DeviceInfo) -> Engine:  # the stage's name in DESIGN.md
    """Build the engine, in a process of its own; that of an untrained network is run there too, and compared with torch.

    Args:
        out_dir: Receives the engine file and a copy of the ONNX file.
        graph: ONNX file in the form that the target's runtime and precision need.
        target: Runtime, precision, batch and threads.
        info: The machine that builds; part of the key, since an engine is made for one machine and version.

    Raises:
        BuildError: The graph was exported for another runtime or precision, the builder refuses it or ends its process, or the engine computes something else.
    """
    backend, form = backend_of(target), graph_form(target)
    if (graph.dialect, graph.float_type) != form:
        raise BuildError(
            f"the graph is in dialect {graph.dialect!r} with {graph.float_type}, but runtime {target.runtime!r} at {target.precision} needs "
            f"{form.dialect!r} with {form.float_type}: export it again for this target"
        )
    shutil.copyfile(graph.folder / MODEL, out_dir / MODEL)
    engine = out_dir / backend.engine_file
    coverage = build_engine(out_dir / MODEL, engine, target, graph.image_shape)
    if info.present and target.device.kind == "cpu" and (graph.folder / PROBES).exists():  # of an untrained network, which nothing has run yet
        try_engine(engine, target, graph.folder, graph.image_shape)
    return Engine(
        folder=out_dir,
        file=backend.engine_file,
        runtime=target.runtime,
        precision=target.precision,
        dialect=graph.dialect,
        info=info,
        image_shape=graph.image_shape,
        parameters=graph.parameters,
        macs=graph.macs,
        coverage=coverage,
        runnable=info.present,
        timing_cache=sha256_file(out_dir / TIMING_CACHE) if (out_dir / TIMING_CACHE).exists() else "",
        not_simplified=graph.not_simplified,
    )
