"""Looks at a package's engine on its device: the tensors inside, the time of each layer, and an engine that the runtime makes of the same file now."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from bonsai.profiles.schema import Target
from bonsai.stages.backends.device import Device, KernelTime
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.runtimes import runtime_of
from bonsai.stages.delivery.packaged_timing import find_dense
from bonsai.stages.delivery.packed_facts import PackedFacts
from bonsai.stages.errors import BuildError
from bonsai.stages.explanation.errors import Network
from bonsai.stages.explanation.faults import Fault
from bonsai.stages.explanation.forms import float_layers, to_float
from bonsai.stages.explanation.layer_times import LayerTime, layers_by_kernel, times_by_layer, too_long
from bonsai.stages.explanation.layers import Graph, Layer, layers_of, read_model
from bonsai.stages.explanation.parameters import faults_of_engine
from bonsai.stages.explanation.probing import Plan, assign, engine_tensors, place, plan_of
from bonsai.stages.explanation.tensors import Tensors
from bonsai.stages.graph.names import MODEL

SHOWS_TENSORS = ("onnxruntime",)
"""Runtimes whose engine is an ONNX file that shows every tensor in it."""
ENGINE, FRESH, FLOAT, DENSE = "engine", "fresh", "float", "dense"
"""Engines that are timed: the package's, one that the runtime makes of model.onnx now, the pruned network in float, and the dense reference."""
TRIES = 3
"""Most times that the engines are profiled."""
NO_DENSE = "The dense reference engine is not in this store, so its layers have no times: name the store that the package was made in, --store DIR."


class Looked(NamedTuple):
    """What was seen of an engine.

    Attributes:
        outputs: Outputs of its layers, by the layer's name, (images, 1, ...); empty if the runtime does not show them.
        joined: Its outputs, (images, ...); None if it was not run.
        faults: What is wrong with its parameters, with the layer's name.
        times: By engine, by the layer's name.
        notes: What could not be looked at, and why.
    """

    outputs: Tensors = {}
    joined: np.ndarray | None = None
    faults: tuple[tuple[str, Fault], ...] = ()
    times: Mapping[str, Mapping[str, LayerTime]] = {}
    notes: tuple[str, ...] = ()


class _Built(NamedTuple):
    """An engine whose layers are known.

    Attributes:
        file: The engine.
        image: One batch for it.
        layers: Layer by the name of a node; None where the runtime's profile names them.
    """

    file: EngineFile
    image: np.ndarray
    model: onnx.ModelProto
    layers: Sequence[Layer]
    nodes: Mapping[str, str] | None


def look_at_engine(
    folder: Path, manifest: PackedFacts, target: Target, model: onnx.ModelProto, layers: Sequence[Layer], images: np.ndarray, store: Path
) -> Looked:
    """Look at the engine of a package whose device is here.

    Args:
        folder: The package.
        manifest: Its manifest.
        target: That of its profile, on the device that runs it.
        model: Its ONNX file.
        layers: The file's layers.
        images: (images, ...) float32.
        store: Folder of the artifacts, which need not exist.

    Raises:
        BuildError: The engine cannot be run, or the runtime does not build one of model.onnx.
    """
    device = device_of(target)
    engine = EngineFile(file=folder / manifest.engine.file, target=target)
    joined = np.concatenate(list(device.run(engine, [image[None] for image in images], untried=True)))
    with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
        room = Path(scratch)
        network = Network(model, layers, images)
        fresh = _build(device, (folder / manifest.engine.graph).read_bytes(), target, room / FRESH, manifest.engine.image_shape)
        looked = _compare(device, engine, fresh, network, images) if target.runs_on in SHOWS_TENSORS else _shown_apart(device, target, network, images, room)
        looked = looked._replace(joined=joined)
        if not runtime_of(target).profiles_kernels:
            note = f"Times by layer are not known: Bonsai reads no profile of {target.runs_on} that tells the layers apart."
            return looked._replace(notes=(*looked.notes, note))
        batch = np.repeat(images[:1], target.batch, axis=0)
        plan = None if target.runs_on not in SHOWS_TENSORS else _plan(device, fresh, network, images)
        nodes = None if plan is None else assign(Graph(read_model(engine.file)), plan.tensors, plan.nodes)
        built = {
            ENGINE: _Built(engine, batch, model, layers, nodes),
            FRESH: _Built(fresh, batch, model, layers, None if plan is None else plan.nodes),
            **_in_float(device, network, target, room / FLOAT, manifest, images),
            **_dense(device, manifest, target, store),
        }
        with device.hold():
            times = _times(device, built)
    return looked._replace(times=times, notes=(*looked.notes, *(() if DENSE in times else (NO_DENSE,))))


def _times(device: Device, built: Mapping[str, _Built]) -> dict[str, dict[str, LayerTime]]:
    """Return the times of all layers, by engine.

    Where a layer of the engine takes too long, which may be another program's doing, all are timed again, and each kernel's shortest time counts.
    """
    files, images = ({name: getattr(each, part) for name, each in built.items()} for part in ("file", "image"))
    kernels: dict[str, tuple[KernelTime, ...]] = {}
    times: dict[str, dict[str, LayerTime]] = {}
    for _ in range(TRIES):
        found = device.kernel_times(files, images)
        kernels = {name: tuple(map(_shorter, kernels.get(name, each), each)) for name, each in found.items()}
        for name, each in built.items():
            layers = each.nodes if each.nodes is not None else layers_by_kernel(each.model, each.layers, kernels[name])
            times[name] = times_by_layer(kernels[name], layers)
        if not any(too_long(layer, times[ENGINE], times[FRESH], "") for layer in times[ENGINE]):
            break
    return times


def _shorter(one: KernelTime, other: KernelTime) -> KernelTime:
    return min(one, other, key=lambda kernel: kernel.microseconds)


def _compare(device: Device, engine: EngineFile, fresh: EngineFile, network: Network, images: np.ndarray) -> Looked:
    """Compare an engine that shows its tensors, layer by layer, with the ONNX file and with a fresh engine."""
    plan = _plan(device, fresh, network, images)
    found = engine_tensors(device, engine, images)
    placed = {name: place(found[seen.tensor], seen.order, network.found[name].shape) for name, seen in plan.seen.items() if seen.tensor in found}
    outputs = {name: value for name, value in placed.items() if value is not None}
    hidden = [layer.name for layer in network.layers if layer.name not in plan.seen]
    notes = (
        (f"The engine computes {len(hidden)} layers in one kernel with the next: {', '.join(hidden)}. Their error is in the next layer's.",) if hidden else ()
    )
    return Looked(outputs=outputs, faults=tuple(faults_of_engine(read_model(engine.file), read_model(fresh.file), plan)), notes=notes)


def _plan(device: Device, engine: EngineFile, network: Network, images: np.ndarray) -> Plan:
    expected = {layer.output: network.found[layer.name] for layer in network.layers}
    return plan_of(engine.file, engine_tensors(device, engine, images), network.layers, expected)


def _shown_apart(device: Device, target: Target, network: Network, images: np.ndarray, room: Path) -> Looked:
    """Compare the layers of a runtime whose engines do not show their tensors: in an engine that is built with each layer's output as an output."""
    shown = onnx.ModelProto()
    shown.CopyFrom(network.model)
    own = {*network.outputs, *Graph(network.model).inputs}
    added = [layer for layer in network.layers if layer.output not in own]
    kinds = {layer.output: onnx.helper.np_dtype_to_tensor_dtype(network.found[layer.name].dtype) for layer in added}
    shown.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items())
    try:
        built = _build(device, shown.SerializeToString(), target, room / "shown", images.shape[1:])
        runs = np.concatenate(list(device.run(built, [image[None] for image in images], untried=True)))
    except BuildError as error:
        return Looked(
            notes=(f"The layers of the engine were not compared: {target.runs_on} builds none that gives their outputs ({str(error).splitlines()[0]}).",)
        )
    start, outputs = sum(value[0].size for value in network.outputs.values()), {}
    for layer in added:
        value = network.found[layer.name]
        outputs[layer.name] = runs[:, start : start + value[0].size].reshape(value.shape)
        start += value[0].size
    what = f"{target.runs_on} does not show the tensors of an engine: its layers were compared in a build that gives them as outputs, and fuses less for that."
    return Looked(outputs=outputs, notes=(what,))


def _in_float(device: Device, network: Network, target: Target, room: Path, manifest: PackedFacts, images: np.ndarray) -> dict[str, _Built]:
    """Return an engine of the same network in float; none where the package's is one."""
    plain = to_float(network.model, {})
    if manifest.engine.precision != "int8":
        return {}
    at = target.at("fp32")
    layers = float_layers(network.layers, plain)
    engine = _build(device, plain.SerializeToString(), at, room, manifest.engine.image_shape)
    return {FLOAT: _located(device, engine, plain, layers, images[:1], at)}


def _dense(device: Device, manifest: PackedFacts, target: Target, store: Path) -> dict[str, _Built]:
    """Return the dense reference engine; none where the store does not have it."""
    dense = find_dense(manifest, store)
    if dense is None or not (dense.folder / MODEL).is_file():
        return {}
    target = target.at(dense.precision)
    model = read_model(dense.folder / MODEL)
    image = np.random.default_rng(0).standard_normal((1, *dense.image_shape)).astype(np.float32)
    return {DENSE: _located(device, dense.for_target(target), model, layers_of(Graph(model)), image, target)}


def _located(device: Device, engine: EngineFile, model: onnx.ModelProto, layers: Sequence[Layer], images: np.ndarray, target: Target) -> _Built:
    nodes = _plan(device, engine, Network(model, layers, images), images).nodes if target.runs_on in SHOWS_TENSORS else None
    return _Built(engine, np.repeat(images[:1], target.batch, axis=0), model, layers, nodes)


def _build(device: Device, graph: bytes, target: Target, room: Path, image_shape: tuple[int, ...]) -> EngineFile:
    room.mkdir()
    (room / MODEL).write_bytes(graph)
    return EngineFile(file=room / device.build(room / MODEL, room, target, image_shape).file, target=target)
