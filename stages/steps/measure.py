"""Stage `measure`: validation accuracy and latency of the finished engines beside the dense network, and which one is shipped."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from bonsai.profiles.schema import HardwareProfile, Target
from bonsai.stages.backends.calm import calm_part
from bonsai.stages.backends.engine import Engine
from bonsai.stages.backends.kernel_profile import profile_kernels
from bonsai.stages.backends.registry import DissectingBackend, backend_of
from bonsai.stages.backends.running import Run
from bonsai.stages.backends.timing import SAMPLES, contention, gating_clock, save_samples, summarise, time_steadily, turn_count
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import DeviceTimes, KernelShare, Measurement, Row
from bonsai.stages.measurement.results import accuracy_of, measured_by, observe, open_for_accuracy
from bonsai.stages.measurement.verdicts import choose_engine
from bonsai.stages.networks.calling import outputs_of
from bonsai.stages.networks.checkpoint import Checkpoint
from bonsai.stages.networks.checkpoints import WEIGHTS, load_quantised, weights_of
from bonsai.stages.quantization.keeping import FloatConvolutions, count_float_convolutions
from bonsai.stages.quantization.records import Quantised
from bonsai.stages.store.store import stage
from bonsai.stages.store.tensor_files import written_plainly
from bonsai.stages.tasks.registry import task_named
from bonsai.stages.tasks.task import Statistics, Task
from bonsai.stages.training.batches import load_split

DENSE = "dense"
PARTS, LAYERS = "parts.safetensors", "layers.json"


@stage(version=6, timed=True)
def measure(
    out_dir: Path,
    dense: Engine,
    candidates: tuple[Engine, ...],
    quantised: Checkpoint | None,
    dataset: Dataset,
    profile: HardwareProfile,
    timing: TimingConfig,
    estimates: tuple[Latency, ...] | None,
) -> Measurement:
    """Run the whole validation part, time the engines in turns, and choose the precision to ship.

    The test part is not looked at: the stage `assess` runs it, by the engine that ships.

    Args:
        out_dir: Receives the raw samples.
        dense: Engine of the dense network at the end of the cycle, at the target's reference precision.
        candidates: Engines of the pruned network, one per precision, the profile's own among them.
        quantised: The fake-quantised network that the INT8 engine was exported from; None where there is none.
        dataset: Source of the validation part.
        profile: Budget and gates.
        timing: The protocol.
        estimates: Latency of the dense and of each candidate where the device is not here; such an engine's accuracy is
            measured by ONNX Runtime on the same ONNX file, and labelled so.
    """
    engines: dict[str, Engine] = {DENSE: dense, **{engine.precision: engine for engine in candidates}}
    task = task_named(dataset.task)
    images, targets = (tensor.numpy() for tensor in load_split(dataset, "validation"))
    runs = {name: open_for_accuracy(engine, profile) for name, engine in engines.items()}
    seen = {name: observe(run, images, targets, task) for name, run in runs.items()}
    busy = None
    if estimates is None:
        latencies, busy = _time(runs, images, profile, timing, out_dir)
    else:
        latencies = dict(zip(engines, estimates, strict=True))
    rows = {name: _row(name, engine, seen[name], task, latencies[name]) for name, engine in engines.items()}
    simulated, meant = [], FloatConvolutions(0, 0)
    if quantised is not None and quantised.quantization is not None:
        networks = load_quantised(quantised)
        simulated = [
            _simulated_row(how, quantised, engines["int8"], observe(_run_of(network), images, targets, task), task) for how, network in networks.items()
        ]
        assert quantised.quantizers is not None
        meant = count_float_convolutions(networks[quantised.quantization.kept], quantised.quantizers, quantised.image_shape)
    built = {e.precision: (e, rows[e.precision], seen[e.precision]) for e in candidates}
    shipped, reason, gates = choose_engine(task, (rows[DENSE], seen[DENSE]), built, profile, dataset.sizes["test"], meant)
    engine = engines[shipped]
    device = _dissect(engine, profile.target, images, out_dir) if engine.runnable and backend_of(profile.target).dissects else None
    pruned = [row.model_copy(update={"shipped": name == shipped}) for name, row in rows.items() if name != DENSE]
    return Measurement(
        folder=out_dir,
        rows=(rows[DENSE], *simulated, *pruned),
        gates=gates,
        shipped=shipped,
        reason=reason,
        kernels=_kernels(engine, profile, out_dir),
        dense_kernels=_kernels(dense, profile, out_dir),
        device=device,
        contention=busy,
    )


def _time(runs: Mapping[str, Run], images: np.ndarray, profile: HardwareProfile, timing: TimingConfig, folder: Path) -> tuple[dict[str, Latency], float]:
    """Time engines in turns; return their latencies, and wall time over CPU time."""
    batch = images[np.arange(profile.target.batch) % len(images)]
    percentile = profile.budget.percentile
    clock = gating_clock(profile.target, percentile)
    samples = time_steadily(runs, batch, timing, clock, percentile)
    save_samples(folder / SAMPLES, samples)
    calm = calm_part(samples, clock, turn_count(timing), DENSE)
    latencies = {name: summarise(values, clock).with_median(summarise(calm[name], clock)) for name, values in samples.items()}
    return latencies, contention(samples)


def _dissect(engine: Engine, target: Target, images: np.ndarray, folder: Path) -> DeviceTimes:
    """Write the layers of an engine, and the times of its parts, whose medians are returned."""
    backend = cast(DissectingBackend, backend_of(target))
    parts, layers = backend.dissect(engine.folder / engine.file, target, images[np.arange(target.batch) % len(images)])
    with written_plainly(folder / PARTS):
        save_file({"copy_in_compute_copy_out_ms": parts}, folder / PARTS)
    (folder / LAYERS).write_text(layers, encoding="utf-8")
    copy_in, compute, copy_out = np.median(parts, axis=0)
    return DeviceTimes(copy_in_ms=copy_in, compute_ms=compute, copy_out_ms=copy_out, n=len(parts))


def _kernels(engine: Engine, profile: HardwareProfile, scratch: Path) -> tuple[KernelShare, ...]:
    """Return what an engine's kernels take, or nothing where they cannot be profiled."""
    if not engine.runnable or not backend_of(profile.target).profiles_kernels:
        return ()
    return profile_kernels(engine.folder / engine.file, profile.target, engine.image_shape, scratch=scratch)


def _row(name: str, engine: Engine, seen: Statistics, task: Task, latency: Latency) -> Row:
    return Row(
        network="dense" if name == DENSE else "pruned",
        precision=engine.precision,
        accuracy=accuracy_of(seen, task, measured_by(engine), "validation"),
        latency=latency,
        size_bytes=(engine.folder / engine.file).stat().st_size,
        parameters=engine.parameters,
        macs=engine.macs,
    )


def _run_of(network: nn.Module) -> Run:
    """Return a network as torch runs it in evaluation."""

    @torch.no_grad()
    def run(batch: np.ndarray) -> np.ndarray:
        return outputs_of(network, torch.from_numpy(batch)).numpy()

    network.eval()
    return run


def _simulated_row(how: Quantised, quantised: Checkpoint, engine: Engine, seen: Statistics, task: Task) -> Row:
    assert quantised.quantization is not None
    size = (quantised.folder / (WEIGHTS if how == quantised.quantization.kept else weights_of(how))).stat().st_size
    accuracy = accuracy_of(seen, task, "torch", "validation")
    counts = {"parameters": engine.parameters, "macs": engine.macs}
    return Row(network="simulated", precision="int8", quantised=how, accuracy=accuracy, latency=None, size_bytes=size, **counts)
