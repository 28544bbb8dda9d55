"""Stage `compile`: from an ONNX file to an engine of the target's runtime."""

import shutil
from pathlib import Path

import numpy as np

from bonsai.profiles.schema import Target
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import DeviceInfo, Engine
from bonsai.stages.backends.runtimes import graph_form
from bonsai.stages.errors import BuildError
from bonsai.stages.graph.names import MODEL
from bonsai.stages.graph.onnx_graph import OnnxGraph
from bonsai.stages.graph.probes import PROBES, compare_outputs, load_outputs, probes_of
from bonsai.stages.store.store import stage


def figures_of(engine: Engine) -> str:
    """Return which engine it is and how large the network is, in a few words."""
    return f"{engine.runtime} {engine.precision}, {engine.parameters / 1e3:.0f} k parameters"


@stage(version=4, figures=figures_of)
def compile(out_dir: Path, graph: OnnxGraph, target: Target, info: DeviceInfo) -> Engine:  # the stage's name in DESIGN.md
    """Build the engine on the device. The engine of an untrained network is run there too, and its outputs are compared with torch's.

    Args:
        out_dir: Receives the engine file and a copy of the ONNX file.
        graph: ONNX file in the form that the target's runtime and precision need.
        target: Runtime, precision, batch and threads.
        info: The machine that builds; part of the key, since an engine is made for one machine and version.

    Raises:
        BuildError: The graph was exported for another runtime or precision, the builder refuses it or ends its process, or the engine computes something else.
    """
    form = graph_form(target)
    if (graph.dialect, graph.float_type) != form:
        raise BuildError(
            f"the graph is in dialect {graph.dialect!r} with {graph.float_type}, but runtime {target.runtime!r} at {target.precision} needs "
            f"{form.dialect!r} with {form.float_type}: export it again for this target"
        )
    shutil.copyfile(graph.folder / MODEL, out_dir / MODEL)
    built = device_of(target).build(out_dir / MODEL, out_dir, target, graph.image_shape)
    engine = Engine(
        folder=out_dir,
        file=built.file,
        runtime=target.runtime,
        precision=target.precision,
        dialect=graph.dialect,
        info=info,
        image_shape=graph.image_shape,
        parameters=graph.parameters,
        macs=graph.macs,
        coverage=built.coverage,
        runnable=info.present,
        timing_cache=built.timing_cache,
        not_simplified=graph.not_simplified,
        fused=graph.fused,
    )
    if info.present and target.device.kind == "cpu" and (graph.folder / PROBES).exists():  # of an untrained network, which nothing has run yet
        _require_as_torch(engine, target, load_outputs(graph.folder))
    return engine


def _require_as_torch(engine: Engine, target: Target, expected: np.ndarray) -> None:
    """Run the probe images together, and the first one alone, and compare the outputs with torch's.

    Raises:
        BuildError: The engine cannot be loaded or run, its process ends, or its outputs differ.
    """
    images = probes_of(engine.folder / MODEL, engine.image_shape, len(expected))
    found = device_of(target).run(engine.for_target(target), [images, images[:1]], untried=True)
    compare_outputs(np.concatenate(list(found)), np.concatenate([expected, expected[:1]]), target.precision, engine.file)
