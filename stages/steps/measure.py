"""Stage `measure`: validation accuracy and latency of the finished engines beside the dense network, and which one is shipped."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from bonsai.profiles.schema import HardwareProfile, Precision, Target
from bonsai.stages.backends.device import Timing, TimingProtocol
from bonsai.stages.backends.devices import device_of
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.runtimes import runtime_of
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.part import Part
from bonsai.stages.graph.probes import noise_images
from bonsai.stages.measurement.alone_timing import time_alone
from bonsai.stages.measurement.asking import time_on_device
from bonsai.stages.measurement.footprint import Footprint
from bonsai.stages.measurement.judging import accuracy_of, judge, latencies_of, observe
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import DeviceTimes, KernelShare, Measurement, Row
from bonsai.stages.measurement.point_record import AtPoint
from bonsai.stages.measurement.results import measured_by, run_for_accuracy
from bonsai.stages.measurement.samples import SAMPLES, contention, gating_clock, save_samples
from bonsai.stages.measurement.verdicts import choose_engine
from bonsai.stages.networks.calling import outputs_of
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, load_quantised, weights_of
from bonsai.stages.quantization.keeping import FloatConvolutions, count_float_convolutions
from bonsai.stages.quantization.records import Quantised
from bonsai.stages.store.store import stage
from bonsai.stages.store.tensor_files import in_rows, written_plainly
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.tasks.task import Statistics, Task

DENSE = "dense"
PARTS, LAYERS = "parts.safetensors", "layers.json"


@stage(version=7, timed=True, figures=Measurement.figures)
def measure(
    out_dir: Path,
    dense: Engine,
    candidates: tuple[Engine, ...],
    quantised: Checkpoint | None,
    dataset: Dataset,
    profile: HardwareProfile,
    timing: TimingConfig,
    estimates: tuple[Latency, ...] | None,
    with_reference: bool = True,
    full: Dataset | None = None,
) -> Measurement:
    """Run the whole validation part, time the engines in turns, and choose the precision to ship.

    The test part is not looked at: the stage `assess` runs it, by the engine that ships.

    Args:
        out_dir: Receives the raw samples.
        dense: Engine of the dense network at the end of the cycle, at the target's reference precision.
        candidates: Engines of the pruned network, one per precision, the profile's own among them.
        quantised: The fake-quantised network that the INT8 engine was exported from; None where there is none.
        dataset: Source of the validation part, in the size that the candidates take.
        profile: Budget and gates.
        timing: The protocol.
        estimates: Latency of the dense and of each candidate where the device is not here; such an engine's accuracy is
            measured by ONNX Runtime on the same ONNX file, and labelled so.
        with_reference: Whether the dense network is the reference. If not, it is untrained: it is timed, and accuracy is not compared with it.
        full: The same images in the size that the dense network takes; None where that is the same.
    """
    engines: dict[str, Engine] = {DENSE: dense, **{engine.precision: engine for engine in candidates}}
    task = task_named(dataset.task)
    part, dense_part = Part(dataset, "validation"), Part(full or dataset, "validation")
    images, dense_images = (each.first(profile.most_images) for each in (part, dense_part))
    clock = gating_clock(profile.target, profile.budget.percentile)
    batches = dict.fromkeys(engines, images) | {DENSE: dense_images}
    timed = _time(engines, batches, profile, timing, clock, out_dir / SAMPLES) if estimates is None else None
    points = _time_points(engines, batches, profile, timing, out_dir)
    compared = {name: engine for name, engine in engines.items() if with_reference or name != DENSE}
    parts = dict.fromkeys(engines, part) | {DENSE: dense_part}
    outputs = {name: run_for_accuracy(engine, profile.target, parts[name].one_by_one()) for name, engine in compared.items()}
    seen, latencies = judge(task, part.targets, outputs, timed, clock=clock, reference=DENSE)
    if estimates is not None:
        latencies = dict(zip(engines, estimates, strict=True))
    footprints: dict[str, Footprint | None] = {engine.precision: _footprint(engine, profile, timing) for engine in candidates} if estimates is None else {}
    rows = {name: _row(name, engine, seen.get(name), task, latencies[name], footprints.get(name)) for name, engine in engines.items()}
    simulated, meant = [], FloatConvolutions(0, 0)
    if quantised is not None and quantised.quantization is not None:
        networks = load_quantised(quantised)
        runs = {how: observe(_run(network, part.one_by_one()), part.targets, task) for how, network in networks.items()}
        simulated = [_simulated_row(how, quantised, engines["int8"], found, task) for how, found in runs.items()]
        assert quantised.quantizers is not None
        meant = count_float_convolutions(networks[quantised.quantization.kept], quantised.quantizers, quantised.image_shape)
    built = {e.precision: (e, rows[e.precision], seen[e.precision]) for e in candidates}
    shipped, reason, gates = choose_engine(task, (rows[DENSE], seen.get(DENSE)), built, profile, dataset.sizes["test"], meant, points)
    engine = engines[shipped]
    device = _dissect(engine, profile.target, images, out_dir) if engine.runnable and runtime_of(profile.target).dissects else None
    pruned = [row.model_copy(update={"shipped": name == shipped}) for name, row in rows.items() if name != DENSE]
    return Measurement(
        folder=out_dir,
        rows=(rows[DENSE], *simulated, *pruned),
        gates=gates,
        shipped=shipped,
        reason=reason,
        kernels=_kernels(engine, profile.target),
        dense_kernels=_kernels(dense, profile.target),
        device=device,
        contention=contention(timed.samples) if timed is not None else None,
        conditions=timed.conditions if timed is not None else None,
        points=points.get(shipped, ()),
    )


def _time(engines: Mapping[str, Engine], images: Mapping[str, np.ndarray], profile: HardwareProfile, timing: TimingConfig, clock: str, samples: Path) -> Timing:
    """Time engines in turns on the device, and keep the raw samples."""
    target = profile.target
    files = {name: engine.for_target(target) for name, engine in engines.items()}
    protocol = TimingProtocol(timing=timing, clock=clock, percentile=profile.budget.percentile)
    filled = {name: batch[np.arange(target.batch) % len(batch)] for name, batch in images.items()}
    found = time_on_device(target, files, filled, protocol)
    save_samples(samples, found.samples)
    return found


def _time_points(
    engines: Mapping[str, Engine], images: Mapping[str, np.ndarray], profile: HardwareProfile, timing: TimingConfig, folder: Path
) -> dict[Precision, tuple[AtPoint, ...]]:
    """Time the same engines at each of the profile's points; return what was found by precision, nothing where there are no points."""
    found: dict[Precision, tuple[AtPoint, ...]] = {}
    for number, (label, point) in enumerate(profile.at_points().items(), 1):
        clock = gating_clock(point.target, point.budget.percentile)
        timed = _time(engines, images, point, timing, clock, folder / f"samples-point-{number}.safetensors")
        latencies = latencies_of(timed, clock, DENSE)
        facts = {"point": label, "batch": point.target.batch, "threads": point.target.threads, "dense": latencies[DENSE]}
        for name, engine in engines.items():
            if name != DENSE:
                at = AtPoint(**facts, engine=latencies[name], footprint=_footprint(engine, point, timing))
                found[engine.precision] = (*found.get(engine.precision, ()), at)
    return found


def _dissect(engine: Engine, target: Target, images: np.ndarray, folder: Path) -> DeviceTimes:
    """Write the layers of an engine, and the times of its parts, whose medians are returned."""
    parts, layers = device_of(target).dissect(engine.for_target(target), images[np.arange(target.batch) % len(images)])
    with written_plainly(folder / PARTS):
        save_file(in_rows({"copy_in_compute_copy_out_ms": parts}), folder / PARTS)
    (folder / LAYERS).write_text(layers, encoding="utf-8")
    copy_in, compute, copy_out = np.median(parts, axis=0)
    return DeviceTimes(copy_in_ms=copy_in, compute_ms=compute, copy_out_ms=copy_out, n=len(parts))


def _kernels(engine: Engine, target: Target) -> tuple[KernelShare, ...]:
    """Return what an engine's kernels take, or nothing where they cannot be profiled."""
    if not engine.runnable or not runtime_of(target).profiles_kernels:
        return ()
    return device_of(target).kernels(engine.for_target(target), noise_images(engine.image_shape, target.batch))


def _footprint(engine: Engine, profile: HardwareProfile, timing: TimingConfig) -> Footprint | None:
    """Run a candidate alone in one process: a forecast of what decides on its memory and energy. None where the budget limits neither."""
    if profile.budget.memory_mb is None and profile.budget.energy_mj is None:
        return None
    return time_alone(engine.for_target(profile.target), image_shape=engine.image_shape, timing=timing, budget=None)


def _row(name: str, engine: Engine, seen: Statistics | None, task: Task, latency: Latency, footprint: Footprint | None) -> Row:
    return Row(
        network="dense" if name == DENSE else "pruned",
        precision=engine.precision,
        accuracy=None if seen is None else accuracy_of(seen, task, measured_by(engine), "validation"),
        latency=latency,
        size_bytes=(engine.folder / engine.file).stat().st_size,
        parameters=engine.parameters,
        macs=engine.macs,
        fused=engine.fused,
        footprint=footprint,
    )


def _run(network: nn.Module, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Run a network on each batch with torch, in evaluation mode."""
    network.eval()
    for batch in batches:
        with torch.no_grad():
            yield outputs_of(network, torch.from_numpy(batch)).numpy()


def _simulated_row(how: Quantised, quantised: Checkpoint, engine: Engine, seen: Statistics, task: Task) -> Row:
    assert quantised.quantization is not None
    size = (quantised.folder / (WEIGHTS if how == quantised.quantization.kept else weights_of(how))).stat().st_size
    accuracy = accuracy_of(seen, task, "torch", "validation")
    counts = {"parameters": engine.parameters, "macs": engine.macs, "fused": engine.fused}
    return Row(network="simulated", precision="int8", quantised=how, accuracy=accuracy, latency=None, size_bytes=size, **counts)
