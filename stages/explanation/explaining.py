"""Explains a package: why is it slow, where was accuracy lost?

    explanation = explain(Path("artifacts/packages/resnet-edge--local-cpu"), store=Path("artifacts"))
    print(explanation.verdict)

Everything but the dense reference's times is computed from the package alone: its ONNX file, its engine, its golden inputs and the weights before rounding.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bonsai.profiles.schema import Target
from bonsai.stages.backends.devices import device_of
from bonsai.stages.delivery.compatibility import find_absence, list_differences, runtime_difference
from bonsai.stages.delivery.contents import PackageManifest, read_any_intact
from bonsai.stages.delivery.deployed import DeployedManifest
from bonsai.stages.delivery.golden import read_golden
from bonsai.stages.errors import DeviceUnavailable
from bonsai.stages.explanation.accuracy import accuracy_steps
from bonsai.stages.explanation.engines import DENSE, ENGINE, FLOAT, Looked, look_at_engine
from bonsai.stages.explanation.errors import Errors, Simulated, errors_of
from bonsai.stages.explanation.findings import findings_of, worth_a_try
from bonsai.stages.explanation.layers import Graph, Layer, layers_of, read_model
from bonsai.stages.explanation.learnt import read_learnt
from bonsai.stages.explanation.parameters import Parameters, parameters_of, weights_before_rounding
from bonsai.stages.explanation.records import Explanation, LayerRow
from bonsai.stages.explanation.tensors import Tensors

Manifest = PackageManifest | DeployedManifest
NO_WEIGHTS = (
    "The package does not hold what its network learnt (network.safetensors of a quantised network), "
    "so weights, biases and scales of model.onnx were compared with nothing."
)


def explain(folder: Path, store: Path, simulated: Simulated | None = None, there: Target | None = None) -> Explanation:
    """Explain a package.

    Args:
        folder: The package.
        store: Folder of the artifacts, which need not exist: it has the dense reference engine.
        simulated: The package's network in torch, run on the golden inputs; None if torch was not asked.
        there: A target whose device runs the engine; None for the device of the package's profile.

    Raises:
        VerificationError: The package is not as it was sealed.
        BuildError: A file cannot be run.
        DeviceUnavailable: The device of `there` cannot be reached.
    """
    manifest = read_any_intact(folder)
    images, _ = read_golden(folder)
    model = read_model(folder / manifest.engine.graph)
    graph = Graph(model)
    layers = layers_of(graph)
    learnt = read_learnt(folder)
    parameters = {layer.name: parameters_of(graph, layer) for layer in layers}
    target = manifest.profile.target if there is None else manifest.profile.target.on_device_of(there)
    absence = _absence(manifest, target)
    looked = Looked(notes=(f"The engine was not run: {absence}",)) if absence else look_at_engine(folder, manifest, target, model, layers, images, store)
    in_torch = None if simulated is None else simulated._replace(tensors=_by_layer(simulated.tensors, parameters))
    errors = errors_of(model, images, weights_before_rounding(layers, parameters, learnt), looked.outputs, looked.joined, in_torch)
    findings = findings_of(manifest, layers, parameters, learnt, errors, looked)
    rows = tuple(_row(layer, errors, looked) for layer in layers)
    notes = [] if learnt is not None or manifest.engine.precision != "int8" else [NO_WEIGHTS]
    return Explanation(
        package=manifest.name,
        precision=manifest.engine.precision,
        images=len(images),
        layers=rows,
        findings=findings,
        worth_a_try=worth_a_try(manifest, layers, findings, looked),
        outputs=errors.outputs,
        accuracy=accuracy_steps(manifest),
        notes=(*notes, *looked.notes),
    )


def _row(layer: Layer, errors: Errors, looked: Looked) -> LayerRow:
    name, times = layer.name, looked.times
    us = {engine: times[engine][name].microseconds for engine in times if name in times[engine]}
    simulated, rounding, engine = (each.get(name) for each in (errors.simulated, errors.rounding, errors.engine))
    return LayerRow(
        name=name,
        op=layer.op,
        dense_us=us.get(DENSE),
        float_us=us.get(FLOAT),
        engine_us=us.get(ENGINE),
        kernels=times[ENGINE][name].kernels if ENGINE in us else (),
        simulated=None if simulated is None else simulated.error,
        rounding=None if rounding is None else rounding.error,
        engine=None if engine is None else engine.error,
        reached=errors.reached.get(name) if errors.rounding or engine else None,
        effect=errors.effects.get(name),
    )


def _by_layer(tensors: Tensors, parameters: Mapping[str, Parameters]) -> Tensors:
    """Return the outputs of quantisers by the layer's name; not of a quantiser that rounds several layers."""
    users = Counter(own.quantizer for own in parameters.values())
    return {name: tensors[own.quantizer] for name, own in parameters.items() if own.quantizer in tensors and users[own.quantizer] == 1}


def _absence(manifest: Manifest, target: Target) -> str | None:
    """Return why the engine cannot be run on the target's device, or None."""
    needed, device = manifest.compatibility, device_of(target)
    machine = device.machine()
    absence = find_absence(needed, machine) or next(list_differences(needed, machine), None)
    if absence is None:
        try:
            absence = runtime_difference(needed, device.describe(target).runtime_version)
        except DeviceUnavailable as error:
            absence = str(error)
    return None if absence is None else absence.partition("\n")[0]
