"""Stage `compile`: from an ONNX file to an engine of the target's runtime."""

import shutil
from pathlib import Path

from profiles.schema import Target
from stages.artifacts import DeviceInfo, Engine, OnnxGraph, sha256_file
from stages.backends.registry import backend_of, graph_form
from stages.backends.tensorrt_build import TIMING_CACHE
from stages.errors import BuildError
from stages.graph.exporting import MODEL
from stages.store import stage


@stage(version=3)
def compile(out_dir: Path, graph: OnnxGraph, target: Target, info: DeviceInfo) -> Engine:  # the stage's name in DESIGN.md
    """Build the engine.

    Args:
        out_dir: Receives the engine file and a copy of the ONNX file.
        graph: In the form that the target's runtime and precision need.
        target: Runtime, precision, batch and threads.
        info: The machine that builds; part of the key, since an engine is made for one machine and version.

    Raises:
        BuildError: The graph was exported for another runtime or precision, or the builder refuses it.
    """
    backend, form = backend_of(target), graph_form(target)
    if (graph.dialect, graph.float_type) != form:
        raise BuildError(
            f"the graph is in dialect {graph.dialect!r} with {graph.float_type}, but runtime {target.runtime!r} at {target.precision} needs "
            f"{form.dialect!r} with {form.float_type}: export it again for this target"
        )
    shutil.copyfile(graph.folder / MODEL, out_dir / MODEL)
    coverage = backend.build(out_dir / MODEL, out_dir / backend.engine_file, target, graph.image_shape)
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
