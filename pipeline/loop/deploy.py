"""From a trained network in hand to a package with a verdict."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from bonsai.pipeline.loop.batches import inputs_in
from bonsai.pipeline.loop.building import build
from bonsai.pipeline.loop.evaluating import Evaluate, evaluate_engines, evaluate_torch
from bonsai.pipeline.loop.exporting import InHand, Specs, take_in_hand
from bonsai.pipeline.loop.in_hand import Example, form_of, profile_of
from bonsai.pipeline.loop.judging import gates_at_points, gates_of, notes_of, rows_of
from bonsai.pipeline.loop.packing import Facts, require_name, require_place, write_package
from bonsai.pipeline.run.final_timing import newest_repetition
from bonsai.pipeline.run.limits import require_measurable, require_runs
from bonsai.pipeline.run.loading import DEFAULT_STORE
from bonsai.pipeline.run.points import require_open_batch
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.located_yaml import Record
from bonsai.profiles.schema import HardwareProfile, Precision
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import DeviceInfo, Engine
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.delivery.deployed import ScoredRow
from bonsai.stages.delivery.golden import GOLDEN_IMAGES
from bonsai.stages.errors import DeviceUnavailable
from bonsai.stages.graph.config import ExportConfig
from bonsai.stages.measurement.measurements import FreshTiming, Gate
from bonsai.stages.steps.time_engine import time_engine
from bonsai.stages.store.lineage import trace_lineage
from bonsai.stages.store.store import Store
from bonsai.stages.training.progress import say

SAMPLES = 64
"""Most samples that file and engine are compared with torch on."""


class Deployed(Record):
    """A finished package.

    Attributes:
        folder: The package.
        gates: Every limit with its figure, its interval and its verdict: ``met``, ``missed`` or ``undecided``. Latency comes first.
        rows: Score, latency and size of the dense engine where there is a reference, of the torch network, and of the shipped engine.
        warnings: What the verdict leaves open, one sentence each.
    """

    folder: Path
    gates: tuple[Gate, ...]
    rows: tuple[ScoredRow, ...]
    warnings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate is met."""
        return all(gate.passed for gate in self.gates)


def deploy(
    model: nn.Module,
    example_input: Example,
    *,
    evaluate: Evaluate,
    samples: Iterable[object],
    target: str = "local-cpu",
    latency: float | None = None,
    latency_ms: float | None = None,
    reference: nn.Module | None = None,
    precision: Precision | None = None,
    max_drop: float | None = None,
    higher_is_better: bool = True,
    score: str = "score",
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    dynamic_batch: bool = True,
    name: str = "model",
    out: str | Path | None = None,
    timing: TimingConfig | None = None,
    store: str | Path = DEFAULT_STORE,
) -> Deployed:
    """Export a trained network, build its engine, measure it, judge it, and write a package.

        def evaluate(run):                                        # inputs (n, ...) to outputs, NumPy arrays
            return iou(run(test_images), test_masks)              # one value for each sample: the gate has an interval

        package = bonsai.deploy(model, images, latency_ms=4.0, evaluate=evaluate, samples=loader, reference=dense)
        assert package.passed, package.gates

    The package is written whatever the verdict is. Under distributed training call it on one rank.

    Args:
        model: A float network, which becomes a float engine, or what `bonsai.quantize` returned, which becomes an INT8 engine. Pass the bare module.
        example_input: A batch as the network gets it, floating point (n, ...): a tensor, a tuple of tensors for the arguments of `forward`, or a dict of
            tensors by argument. Its values do not matter.
        evaluate: Gets a function from inputs (n, ...) to outputs, as the network takes and returns them, arrays instead of tensors. It is called on the torch
            network, on the reference's engine and on the engine that ships. Let it return a value for each sample, or one number for all.
        samples: Batches, as for `bonsai.quantize`. On up to 64 samples of them, file and engine are compared with torch.
        target: Name of a profile, or the path of a file. Its device must be here, or have an address.
        latency: Budget as a fraction (0-1) of the reference engine's latency; the profile's own where neither budget is given.
        latency_ms: Budget in milliseconds for one inference. It needs no reference.
        reference: The dense float network before it was pruned. Without it no drop of the score is judged.
        precision: Of a float engine, where the target has several; else its own.
        max_drop: Largest allowed drop of the score from the reference to the engine; the profile's `gates.max_drop` by default.
        higher_is_better: Whether a higher score is better. If not, a drop is a rise.
        score: What `evaluate` measures, in words.
        inputs: Names of the inputs in the ONNX file: by default `input` for one, ``input_0``, ``input_1``, ... for a tuple, and the keys of a dict.
        outputs: Names of the outputs in the ONNX file.
        dynamic_batch: Whether the file takes any number of samples; if not, it takes as many as the profile's `target.batch`.
        name: Of the package.
        out: Folder of the packages, where an older one of the name is replaced; ``packages`` in the store by default.
        timing: How long engines are timed.
        store: Folder of what was built and measured. The same engine is not timed again there.

    Raises:
        ConfigError: Something that was given does not fit, or `evaluate` fails. Most of it is found before anything is built.
        BuildError: A network cannot be exported or built, or its engine computes something else.
        DeviceUnavailable: The target's runtime or device is not here.
    """
    form = form_of(example_input)
    profile = _limits(profile_of(target, latency=latency, latency_ms=latency_ms, precision=None), max_drop, has_reference=reference is not None)
    folder = Path(out if out is not None else Path(store) / "packages") / require_name(name)
    require_place(folder)
    info = _describe(profile)
    require_open_batch(profile, dynamic_batch=dynamic_batch, key="dynamic_batch")
    for one in (profile, *profile.at_points().values()):
        require_measurable(one, info)
        require_runs(one, timing or TimingConfig())
    images = torch.cat(inputs_in(samples, form, "samples", samples=SAMPLES))
    if len(images) < GOLDEN_IMAGES:
        raise ConfigError(describe("samples are too few", given=len(images), allowed=f"{GOLDEN_IMAGES} or more", fix="yield more samples"))
    hand = take_in_hand(model, "the model", form, images)
    dense_hand = None if reference is None else _take_reference(reference, hand, images)
    profile = profile.model_copy(update={"target": profile.target.at(hand.precision(profile.target, precision))})
    named = form.specs(inputs, "input")
    specs, timing, kept = Specs(named, hand.form.specs(outputs, "output", taken=named)), timing or TimingConfig(), Store(Path(store))
    config = ExportConfig(dynamic_batch=dynamic_batch)
    by_torch = evaluate_torch(evaluate, hand)
    with kept.in_use():
        shipped = build(hand, profile.target, info, specs, images, config, kept.run)
        at_reference = profile.target.at(profile.target.reference)
        dense = None if dense_hand is None else build(dense_hand, at_reference, info, specs, images, config, kept.run)
        found = evaluate_engines(evaluate, by_torch, shipped, dense, profile.target, specs.outputs)
        engines = (shipped.engine, dense.engine if dense else None)
        timed, *points = [_time(*engines, one, timing, kept) for one in (profile, *profile.at_points().values())]
        lineage = trace_lineage(shipped.engine, timed, *points, *([dense.engine] if dense else []))
    gates = (*gates_of(found, shipped, timed, profile, higher_is_better=higher_is_better, score=score), *gates_at_points(points, profile))
    rows = rows_of(found, shipped, dense, timed.fresh)
    warnings = () if dense else ("No dense reference was given, so no drop of the score is judged.",)
    facts = Facts(
        name=name,
        profile=profile,
        engine=shipped.engine,
        specs=specs,
        score=score,
        higher_is_better=higher_is_better,
        rows=rows,
        gates=gates,
        warnings=warnings,
        notes=notes_of(found, timed),
        graph_parity=shipped.graph_parity,
        engine_parity=shipped.engine_parity,
        network=hand.facts,
        reference=dense_hand.facts if dense_hand is not None else None,
        timing=timing,
        lineage=lineage,
    )
    write_package(folder, facts, images.numpy())
    for line in (*(gate.sentence for gate in gates), *warnings, f"package: {folder}"):
        say(line)
    return Deployed(folder=folder, gates=gates, rows=rows, warnings=warnings)


def _limits(profile: HardwareProfile, max_drop: float | None, *, has_reference: bool) -> HardwareProfile:
    """Return the profile with the limit on the drop that is judged: none where there is no reference.

    Raises:
        ConfigError: A limit needs the reference, and there is none; or it is no allowed number.
    """
    if max_drop is not None and not 0 <= max_drop < float("inf"):
        raise ConfigError(
            describe("max_drop is no allowed drop", given=max_drop, allowed="0 or more, in the unit of the score", fix="pass 0.02 for two points")
        )
    fix = "pass the dense float network as `reference`"
    fractions = [budget.latency for budget in (profile.budget, *(point.budget for point in profile.points)) if budget.latency is not None]
    if not has_reference and fractions:
        fix = f"{fix}, or a budget in milliseconds: latency_ms=4.0"
        problem = "a budget that is a fraction needs the dense network that it is a fraction of"
        raise ConfigError(describe(problem, given=f"latency={fractions[0]:g} and no reference", allowed="a reference, or latency_ms", fix=fix))
    if not has_reference and max_drop is not None:
        raise ConfigError(describe("max_drop needs the dense network", given=f"{max_drop=} and no reference", allowed="both or neither", fix=fix))
    limit = None if not has_reference else profile.gates.max_drop if max_drop is None else max_drop
    return profile.model_copy(update={"gates": profile.gates.model_copy(update={"max_drop": limit})})


def _describe(profile: HardwareProfile) -> DeviceInfo:
    info = device_of(profile.target).describe(profile.target)
    if not info.present:
        fix = "give the profile the device's address (docs/devices.md), call bonsai.deploy on that device, or run a recipe, which estimates latency"
        given = f"{profile.target.device.name} is not in this machine"
        raise DeviceUnavailable(describe("the engine cannot be measured here", given=given, allowed="a target whose device is here", fix=fix))
    return info


def _take_reference(reference: nn.Module, hand: InHand, samples: torch.Tensor) -> InHand:
    found = take_in_hand(reference, "the reference", hand.inputs, samples)
    if found.quantizers is not None or found.form != hand.form:
        given = (
            "a quantised network"
            if found.quantizers is not None
            else f"outputs {found.form.keys} of {found.form.shapes}, the model's {hand.form.keys} of {hand.form.shapes}"
        )
        fix = "pass the float network that was there before anything was pruned, such as a copy.deepcopy of it"
        raise ConfigError(describe("the reference is no dense form of the model", given=given, allowed="a float network with the model's outputs", fix=fix))
    return found


def _time(engine: Engine, dense: Engine | None, profile: HardwareProfile, timing: TimingConfig, store: Store) -> FreshTiming:
    """Return the newest timing of an engine in new processes, or make the first."""
    facts = {"target": profile.target, "budget": profile.budget, "timing": timing, "verdict": timing.verdict, "known_ms": None}
    inputs = {"engine": engine, "dense": dense, **facts}
    return store.run(time_engine, **inputs, repetition=max(newest_repetition(store, inputs), 1))
