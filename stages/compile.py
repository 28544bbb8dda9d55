"""Stage `compile`: from an ONNX file to an engine of the target's runtime."""

import shutil
from pathlib import Path

from profiles.schema import Target
from stages.artifacts import DeviceInfo, Engine, OnnxGraph
from stages.backends.registry import backend_of
from stages.errors import BuildError
from stages.graph.exporting import MODEL
from stages.store import stage


@stage(version=1)
def compile(out_dir: Path, graph: OnnxGraph, target: Target, info: DeviceInfo) -> Engine:  # the stage's name in DESIGN.md
    """Build the engine.

    Args:
        out_dir: Receives the engine file and a copy of the ONNX file.
        graph: In the dialect of the target's runtime, or in float.
        target: Runtime, precision, batch and threads.
        info: The machine that builds; part of the key, since an engine is made for one machine and version.

    Raises:
        BuildError: The graph has another runtime's dialect, or the builder refuses it.
    """
    backend = backend_of(target)
    if graph.dialect not in ("float", backend.dialect):
        raise BuildError(
            f"the graph is in dialect {graph.dialect!r}, but runtime {target.runtime!r} needs {backend.dialect!r}: export it again for this runtime"
        )
    shutil.copyfile(graph.folder / MODEL, out_dir / MODEL)
    coverage = backend.build(out_dir / MODEL, out_dir / backend.engine_file, target, graph.image_shape)
    return Engine(
        folder=out_dir,
        file=backend.engine_file,
        runtime=target.runtime,
        dialect=graph.dialect,
        info=info,
        image_shape=graph.image_shape,
        parameters=graph.parameters,
        macs=graph.macs,
        coverage=coverage,
        runnable=info.present,
    )
