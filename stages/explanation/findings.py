"""Which layers stand out, what is wrong there, and what to do about it."""

from collections.abc import Mapping, Sequence

import numpy as np

from bonsai.stages.delivery.packed_facts import PackedFacts
from bonsai.stages.explanation.engines import ENGINE, FLOAT, FRESH, Looked
from bonsai.stages.explanation.errors import Errors
from bonsai.stages.explanation.faults import Fault, of_levels, of_range
from bonsai.stages.explanation.layer_times import WORTH_A_TRY, in_float, too_long
from bonsai.stages.explanation.layers import Layer
from bonsai.stages.explanation.learnt import Learnt
from bonsai.stages.explanation.parameters import Parameters, fault_of_file, learnt_of
from bonsai.stages.explanation.records import Finding, Place

STEPS = 0.75
"""Root mean square, in steps of the output's grid, of an engine's error that is none of rounding. Clean engines: below 0.1."""
IN_FLOAT = 1e-2
"""The same of an output that is not rounded, over its size."""
OF_OUTPUTS, ABOVE_OTHERS = 0.25, 3.0
"""A layer whose rounding alone moves the outputs by this much of their size, and this many times as much as the median layer's, stands out."""
REBUILD = "build the engine again from model.onnx, on its device: repeat the `bonsai run`"
EXPORT = "make model.onnx again, for it is not what the network learnt: repeat the `bonsai run`"


def findings_of(
    manifest: PackedFacts, layers: Sequence[Layer], parameters: Mapping[str, Parameters], learnt: Learnt | None, errors: Errors, looked: Looked
) -> tuple[Finding, ...]:
    """Return the layers that stand out, one finding each: first faults of files, then what a sound file costs."""
    found: dict[str, Finding] = {}

    def add(layer: Layer, fault: Fault | None, place: Place, do: str) -> None:
        if fault is None:
            return
        if layer.name in found:
            if fault.kind in {"slow", "float"}:
                first = found[layer.name]
                found[layer.name] = first.model_copy(update={"seen": f"{first.seen}; {fault.seen}"})
            return
        found[layer.name] = Finding(layer=layer.name, kind=fault.kind, place=place, seen=fault.seen, do=do)

    by_name = {layer.name: layer for layer in layers}
    for name, seen in looked.faults:
        add(by_name[name], seen, "engine", REBUILD)
    told: set[str] = set()
    for layer in layers:
        own = parameters[layer.name]
        fault = fault_of_file(layer, own, learnt)
        if fault is None or not own.quantizer or own.quantizer not in told:
            add(layer, fault, "model.onnx", _unless_kept(manifest, layer, fault))
        if fault is not None:
            told.add(own.quantizer)
    sound = not found or {finding.kind for finding in found.values()} == {"float"}  # else layers near a fault may be in float because of it
    for layer in layers:
        keep, own = _keep(layer), parameters[layer.name]
        if not looked.faults:  # else what reads a wrong value by a wrong scale would be named too
            add(layer, _of_runtime(layer, own, errors), "engine", f"{keep}, or quantize.weight_bits: 7 if products saturate on the device")
        add(layer, _of_values(layer, own, learnt, errors), "network", f"{keep}, or calibrate on more batches (quantize.calibration_batches)")
        add(layer, _of_rounding(layer, errors), "network", f"{keep}; or keep more of its channels (prune.floors)")
        if ENGINE in looked.times:
            here, again = looked.times[ENGINE], looked.times[FRESH]
            add(layer, too_long(layer.name, here, again, "in an engine that the runtime makes of model.onnx now"), "engine", REBUILD)
            if manifest.engine.precision == "int8" and _is_inner(layer, layers) and sound:
                add(layer, in_float(layer.name, here), "network", _unless_kept(manifest, layer, None))
    return tuple(found.values())


def worth_a_try(manifest: PackedFacts, layers: Sequence[Layer], findings: Sequence[Finding], looked: Looked) -> tuple[str, ...]:
    """Return what may make a sound INT8 engine faster, one sentence each: layers that INT8 slows down, and layers in float."""
    if ENGINE not in looked.times or manifest.engine.precision != "int8":
        return ()
    here, said, lines = looked.times[ENGINE], {finding.layer for finding in findings}, []
    for layer in (layer for layer in layers if layer.name not in said):
        slower = too_long(layer.name, here, looked.times.get(FLOAT, {}), "in float", WORTH_A_TRY)
        if slower is not None:
            lines.append(f"{layer.name}: {slower.seen}. Try {_keep(layer)}.")
        elif _is_inner(layer, layers) and (found := in_float(layer.name, here, WORTH_A_TRY)) is not None:
            lines.append(f"{layer.name}: {found.seen}. Try this: {_unless_kept(manifest, layer, None)}.")
    return tuple(lines)


def _is_inner(layer: Layer, layers: Sequence[Layer]) -> bool:
    """Whether a layer can be INT8 from end to end: an input comes in float, and the outputs leave in float."""
    return bool(layer.node) and layer is not layers[-1]


def _of_runtime(layer: Layer, own: Parameters, errors: Errors) -> Fault | None:
    """Return that the runtime computes a layer otherwise than the ONNX file says, given the same input."""
    pair = errors.engine.get(layer.name)
    if pair is None:
        return None
    if own.written is None:
        return Fault("runtime", f"the runtime's outputs are off by {pair.error:.1%} of their size, given the same input") if pair.error > IN_FLOAT else None
    steps = float(np.sqrt(np.mean(np.square(pair.found.astype(np.float64) - pair.wanted)))) / own.written.scale
    return Fault("runtime", f"the runtime's outputs are off by {steps:.1f} steps of its scale, given the same input") if not steps <= STEPS else None


def _of_values(layer: Layer, own: Parameters, learnt: Learnt | None, errors: Errors) -> Fault | None:
    """Return what the values say about parameters that nothing else is known of."""
    if own.integers is not None and own.weight is not None and learnt_of(layer, own, learnt) is None and (fault := of_levels(own.weight)):
        return fault
    if own.written is None or layer.name not in errors.rounding or (learnt is not None and learnt.grid(own.quantizer) is not None):
        return None
    return of_range(errors.rounding[layer.name].wanted, own.written, own.levels)


def _of_rounding(layer: Layer, errors: Errors) -> Fault | None:
    effect = errors.effects.get(layer.name, 0.0)
    median = float(np.median(list(errors.effects.values()))) if errors.effects else 0.0
    if effect < OF_OUTPUTS or effect < ABOVE_OTHERS * median:
        return None
    return Fault("rounding", f"if it alone is rounded, the outputs move by {effect:.0%} of their size; the median layer moves them by {median:.1%}")


def _keep(layer: Layer) -> str:
    return f"quantize.keep_float: [{layer.near or layer.name}]"


def _unless_kept(manifest: PackedFacts, layer: Layer, fault: Fault | None) -> str:
    """Return what to do about a layer in float, or about any other fault of the ONNX file."""
    if fault is not None and fault.kind != "float":
        return EXPORT
    recipe = getattr(manifest, "recipe", {})
    kept = recipe.get("quantize", {}).get("keep_float", ()) if isinstance(recipe.get("quantize"), dict) else ()
    if kept:
        return f"take it out of quantize.keep_float ({', '.join(map(str, kept))}), or accept its time"
    return EXPORT if fault is not None else "the runtime has no INT8 kernel for it: use another operator, or target.precision: fp32 if INT8 does not pay"
