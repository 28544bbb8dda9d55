"""What a package's manifest tells a report, short but whole: figures that a test can count with."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bonsai.profiles.loader import load_profile
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import HardwareProfile
from bonsai.stages.backends.engine import DeviceInfo
from bonsai.stages.delivery.compatibility import Compatibility
from bonsai.stages.delivery.contents import PackageManifest
from bonsai.stages.delivery.decisions import Attempt, Decisions, Tried
from bonsai.stages.delivery.packed_facts import PackagedEngine
from bonsai.stages.measurement.budget_gates import limit_of, verdict_within
from bonsai.stages.measurement.latency import ROOFLINE, TABLE_ELSEWHERE, Latency
from bonsai.stages.measurement.measurements import Accuracy, Gate, KernelShare, Row
from bonsai.stages.measurement.point_record import AtPoint
from bonsai.stages.networks.checkpoint import History
from bonsai.stages.pruning.epi import Trigger
from bonsai.stages.reporting.evidence import latency_of
from bonsai.stages.selection.latency import Forecast, OperatorForecast
from bonsai.stages.selection.loop import Fit, Round
from bonsai.stages.store.lineage import Ancestor

DENSE, KEPT = {"stem": 32, "body.conv1": 64}, {"stem": 16, "body.conv1": 48}
TRIGGER = Trigger(
    policy="epi", check=4, epoch=2.0, stable=True, tau=0.944, epochs=(0.5, 1.0, 1.5, 2.0), curve=(None, 0.9, 0.95, 0.99), overlap=(None, 0.6, 0.7, 0.8)
)
PHASES = ("trunk", "trunk", "branch", "branch", "qat")
HISTORY = tuple(History(step=i, epoch=i + 1, phase=phase, loss=1 / (i + 1), metric="top1", validation=0.9 + i / 100) for i, phase in enumerate(PHASES))


def story(profile: HardwareProfile, *, shipped_ms: float = 0.5, estimated: bool = False, undecided: bool = False, table: str = "") -> dict[str, Any]:
    """Return the fields of a manifest that a report is made of: dense FP32 takes 2 ms. `table` says where a latency table was measured that was brought."""
    estimated, clock = estimated or bool(table), TABLE_ELSEWHERE if table else ROOFLINE
    limit = profile.budget.latency or 1
    passed = shipped_ms / 2 <= limit
    estimate = clock if estimated else ""
    rows = (_row("dense", "fp32", 0.95, 2.0, estimate), _row("pruned", "int8", 0.94, shipped_ms, estimate, shipped=True))
    gates = (
        Gate(
            name="latency",
            limit=limit,
            found=shipped_ms / 2,
            unit="of dense FP32 p50",
            verdict="undecided" if undecided else "met" if passed else "missed",
            low=None if estimated else shipped_ms / 2 * 0.97,
            high=None if estimated else shipped_ms / 2 * 1.03,
            note=latency_of(rows[1]).told if estimated else "",
        ),
        Gate(name="accuracy drop", limit=0.05, found=0.02, unit="top-1 (upper end of the 95 % interval)", verdict="met", note="+0.0100 on the test images"),
    )
    decisions = _decisions(shipped_ms, table or ("estimated" if estimated else "measured"))
    how = "Latency: ESTIMATED from published rates (roofline)." if estimated else "Latency: measured in turns."
    points = [_at_point(label, point) for label, point in profile.at_points().items()]
    return {
        "recipe": {"name": "tiny", "prune": {"schedule": {"soft": False}}},
        "profile": profile,
        "decisions": decisions.model_dump(mode="json", exclude={"recipe"}),
        "metrics": rows,
        "points": tuple(at for at, _ in points),
        "gates": (*gates, *(gate for _, gate in points)),
        "notes": ("Precision: int8.", "Accuracy: 400 test images.", how),
        "kernels": () if estimated else (_kernel("QLinearConv", "int8", 0.9), _kernel("QuantizeLinear", "float", 0.1)),
        "dense_kernels": () if estimated else (_kernel("Conv", "float", 1.0),),
        "quantisation": "Validation top-1: float 0.9500, PTQ 0.9400; kept: PTQ.",
        "history": HISTORY,
        "lineage": (_ancestor("package", 1.0, profile.name), _ancestor("train_dense", 60.0, "trunk")),
    }


def a_manifest(profile: str = "local-cpu", *, points: Sequence[Mapping[str, Any]] = (), **told: Any) -> PackageManifest:
    """Return the manifest of a package that is nowhere; `points` are the profile's, `told` is for `story`."""
    loaded = load_profile(profile, {"budget.latency": 0.4, "points": [dict(point) for point in points]})
    facts = {"device": loaded.target.device.name, "isa": (), "cores": 8, "system": "Linux x86_64", "runtime": loaded.target.runtime}
    return PackageManifest(
        name=f"tiny--{profile}",
        engine=PackagedEngine(
            file="engine.onnx",
            graph="model.onnx",
            runtime=loaded.target.runtime,
            precision="int8",
            dialect="ort",
            image_shape=(1, 8, 8),
            coverage={"int8_convolutions": 2, "float_convolutions": 0},
            run_here=True,
        ),
        compatibility=Compatibility(
            device="d",
            sm=None,
            runtime="onnxruntime",
            built_with="1",
            runtime_versions="==1",
            system=None,
            architecture=None,
            isa=("avx2",),
            excluded_isa=(),
            driver=None,
            threads=1,
            batch=(1, 1),
        ),
        golden="engine",
        files={"engine.onnx": "a" * 64, "report.html": "b" * 64},
        device=DeviceInfo.model_validate({**facts, "runtime_version": "1", "present": True}),
        tools={"torch": "2.13"},
        classes=("circle", "line"),
        **story(loaded, **told),
    )


def _at_point(label: str, point: HardwareProfile) -> tuple[AtPoint, Gate]:
    """Return both engines at a point, the dense one at a millisecond for each image, the other at a third of that, and the gate of its latency."""
    dense, engine = (_row("pruned", "int8", 0.9, ms, "").latency for ms in (point.target.batch, point.target.batch / 3))
    found, (limit, unit) = 1 / 3 if point.budget.latency else point.target.batch / 3, limit_of(point.budget, "fp32")
    verdict = verdict_within(found * 0.98, found * 1.02, limit)
    at = AtPoint.model_validate({"point": label, "batch": point.target.batch, "threads": point.target.threads, "dense": dense, "engine": engine})
    return at, Gate(name=f"latency at {label}", limit=limit, found=found, unit=unit, verdict=verdict, low=found * 0.98, high=found * 1.02)


def _row(network: str, precision: str, top1: float, ms: float, estimate: str, *, shipped: bool = False) -> Row:
    measured = {"clock": "wall", "p50": ms, "p90": ms * 1.1, "p95": ms * 1.2, "p99": ms * 1.5, "mean": ms, "n": 1000, "cv": 0.01, "wall_p50": ms}
    latency = {"source": "estimated", "clock": estimate, "p50": ms} if estimate else {"source": "measured", **measured}
    accuracy = Accuracy(metric="top1", value=top1, low=top1 - 0.02, high=top1 + 0.02, n=400, measured_by="engine")
    facts = {"network": network, "precision": precision, "shipped": shipped, "size_bytes": int(ms * 1e6), "parameters": 1000, "macs": 2_000_000}
    return Row.model_validate({**facts, "accuracy": accuracy, "latency": Latency.model_validate(latency)})


def _decisions(shipped_ms: float, table_source: str) -> Decisions:
    conv = OperatorClass(op="conv", kernel=3, height=8, width=8, epilogue="relu")
    operators = (
        OperatorForecast(module="stem", operator=conv, dense=(1, 32), kept=(1, 16), dense_ms=0.3, kept_ms=0.15),
        OperatorForecast(module="body.conv1", operator=conv, dense=(32, 64), kept=(16, 48), dense_ms=0.6, kept_ms=0.25),
    )
    rounds = (Round(widths=KEPT, predicted_ms=0.48, measured_ms=0.485, upper_ms=0.49, value=1.0),)
    return Decisions(
        recipe_name="tiny",
        recipe=json.dumps({"model": {"name": "resnet8"}, "data": {"name": "digits"}}),
        trigger=TRIGGER,
        cuts=(2.0,),
        criterion="magnitude_l2",
        fit=Fit(widths=KEPT, predicted_ms=0.48, aim_ms=0.5, gap=0.001, rounds=rounds),
        attempts=(Attempt(widths=KEPT, predicted_ms=0.48, engine_ms=shipped_ms, rounds=rounds),),
        tried=(Tried(precision="int8", metric="top1", validation=0.94, test=0.94, latency=0.9, outcome="shipped"),),
        dense_widths=DENSE,
        kept_widths=KEPT,
        table_source=table_source,
        forecast=Forecast(precision="int8", overhead_ms=0.1, operators=operators),
        dense_history=HISTORY[:2],
        dense_ms={"int8": 1.0, "fp16": 1.5} if table_source == "estimated" else {"int8": 1.0},
    )


def _kernel(op: str, precision: str, share: float) -> KernelShare:
    return KernelShare.model_validate({"op": op, "precision": precision, "count": 2, "share": share})


def _ancestor(stage: str, seconds: float, name: str) -> Ancestor:
    return Ancestor(artifact=f"{stage}/{name}", digest=f"{stage}{name}", made_from=(), finished="2026-01-01T00:00:00Z", seconds=seconds, tools={})
