"""Stage `measure`: accuracy and latency of the finished engine beside the dense network, and the verdict."""

from pathlib import Path

import numpy as np
import torch

from profiles.schema import HardwareProfile
from stages.artifacts import Checkpoint, Dataset, Engine, Latency
from stages.backends.onnxruntime_engine import open_graph
from stages.backends.registry import Run, backend_of
from stages.backends.timing import SAMPLES, TimingConfig, contention, gating_clock, save_samples, summarise, time_steadily
from stages.checkpoints import WEIGHTS, load_network
from stages.graph.exporting import MODEL
from stages.intervals import paired_drop, wilson
from stages.measurements import Accuracy, Gate, Measurement, Row
from stages.store import stage
from stages.training.batches import load_split

NAMES = ("dense", "pruned", "engine")


@stage(version=2, timed=True)
def measure(
    out_dir: Path,
    dense: Engine,
    pruned: Engine,
    engine: Engine,
    final: Checkpoint,
    dataset: Dataset,
    profile: HardwareProfile,
    timing: TimingConfig,
    estimates: tuple[Latency, Latency, Latency] | None,
) -> Measurement:
    """Measure top-1 on the whole test split and latency in turns, and judge the gates.

    Args:
        out_dir: Receives the raw samples.
        dense: FP32 engine of the dense network at the end of the cycle.
        pruned: FP32 engine of the pruned network.
        engine: The engine to ship.
        final: The network that `engine` was exported from; fake-quantised where the target is INT8.
        dataset: Source of the test split.
        profile: Budget and gates.
        timing: The protocol.
        estimates: Latency of dense, pruned and engine where the device is not here; such an engine's accuracy is
            measured by ONNX Runtime on the same ONNX file, and labelled so.
    """
    engines = dict(zip(NAMES, (dense, pruned, engine), strict=True))
    images, labels = load_split(dataset, "test")
    runs = {name: _open(e, profile) for name, e in engines.items()}
    measured_by = "engine" if engine.runnable else "onnxruntime on the same ONNX file"
    hits = {name: _hits(run, images, labels) for name, run in runs.items()}
    busy = None
    if estimates is None:
        batch = images[torch.arange(profile.target.batch) % len(images)].numpy()
        clock = gating_clock(profile.target)
        samples = time_steadily(runs, batch, timing, clock)
        save_samples(out_dir / SAMPLES, samples)
        latencies = {name: summarise(values, clock) for name, values in samples.items()}
        busy = contention(samples)
    else:
        latencies = dict(zip(NAMES, estimates, strict=True))
    rows = {
        name: Row(
            name=name,
            accuracy=_accuracy(hits[name], measured_by),
            latency=latencies[name],
            size_bytes=(e.folder / e.file).stat().st_size,
            parameters=e.parameters,
            macs=e.macs,
        )
        for name, e in engines.items()
    }
    if final.quantizers is not None:
        rows["quantised"] = _quantised_row(final, engine, images, labels)
    ordered = tuple(rows[name] for name in ("dense", "pruned", "quantised", "engine") if name in rows)
    return Measurement(
        folder=out_dir,
        rows=ordered,
        gates=judge(rows["dense"], rows["engine"], paired_drop(hits["dense"], hits["engine"]), engine, profile),
        test_images=len(labels),
        contention=busy,
    )


def judge(dense: Row, shipped: Row, drop: tuple[float, float, float], engine: Engine, profile: HardwareProfile) -> tuple[Gate, ...]:
    """Return every limit of the profile with what was found; of the accuracy's drop the upper end of its interval."""
    assert dense.latency is not None and shipped.latency is not None
    note = "" if shipped.latency.source == "measured" else "estimated"
    percentile = profile.budget.percentile
    found, limit, unit = shipped.latency.at(percentile), float(profile.budget.latency_ms or 0), f"ms p{percentile}"
    if profile.budget.latency is not None:
        found, limit, unit = found / dense.latency.at(percentile), profile.budget.latency, f"of dense FP32 p{percentile}"
    most = profile.gates.max_accuracy_drop
    gates = [
        Gate(name="latency", limit=limit, found=found, unit=unit, passed=found <= limit, note=note),
        Gate(name="accuracy drop", limit=most, found=drop[2], unit="top-1 at most (95 %)", passed=drop[2] <= most, note=f"{drop[0]:+.4f} on the test images"),
    ]
    if profile.gates.max_size_mb is not None:
        size = shipped.size_bytes / 1e6
        gates.append(Gate(name="size", limit=profile.gates.max_size_mb, found=size, unit="MB", passed=size <= profile.gates.max_size_mb))
    if profile.target.precision == "int8" and "float_convolutions" in engine.coverage:
        floats = engine.coverage["float_convolutions"]
        gates.append(Gate(name="float convolutions", limit=1, found=floats, unit="kernels", passed=floats <= 1, note="the first may stay float"))
    return tuple(gates)


def _open(engine: Engine, profile: HardwareProfile) -> Run:
    if engine.runnable:
        return backend_of(profile.target).open_engine(engine.folder / engine.file, profile.target)
    return open_graph(engine.folder / MODEL)


def _hits(run: Run, images: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Return whether each image is classified rightly, (n,) bool."""
    return np.concatenate([run(images[i : i + 1].numpy()).argmax(1) == labels[i : i + 1].numpy() for i in range(len(labels))])


def _accuracy(hits: np.ndarray, measured_by: str) -> Accuracy:
    low, high = wilson(hits)
    return Accuracy(top1=float(hits.mean()), low=low, high=high, n=len(hits), measured_by=measured_by)


def _quantised_row(quantised: Checkpoint, engine: Engine, images: torch.Tensor, labels: torch.Tensor) -> Row:
    network = load_network(quantised).eval()

    @torch.no_grad()
    def run(batch: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(batch)).numpy()  # type: ignore[no-any-return]  # torch leaves it untyped

    hits = _hits(run, images, labels)
    size = (quantised.folder / WEIGHTS).stat().st_size
    return Row(name="quantised", accuracy=_accuracy(hits, "torch"), latency=None, size_bytes=size, parameters=engine.parameters, macs=engine.macs)
