"""Time of one operator on this machine, from the profile of ONNX Runtime's kernels."""

import json
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from profiles.latency import Entry, OperatorClass
from profiles.schema import Target
from stages.backends.onnxruntime_engine import PROVIDERS
from stages.graph.single_operator import single_operator_graph

STATISTIC = "mean of the middle half"
RUNS, LEAST_RUNS, SECONDS = 350, 30, 0.4
"""Runs of one operator: fewer of a slow one, until the seconds are over."""
WARM = 7  # the first of every so many runs are not counted
EDGES = {"Transpose", "ReorderInput", "ReorderOutput", "QuantizeLinear", "DequantizeLinear"}
"""Conversions at the edges of a graph of one operator, which the whole network has not."""


def measure_operator(operator: OperatorClass, ci: int, co: int, target: Target, *, scratch: Path) -> tuple[Entry, float | None]:
    """Time an operator in its context.

    The profiler cuts durations to whole microseconds: half of one is added back for every kernel.

    Returns:
        The table's entry, and wall time over CPU time of the runs (1 on a quiet machine), None with several threads.
    """
    model, feeds = single_operator_graph(operator, ci, co, batch=target.batch, precision=target.precision)
    options = ort.SessionOptions()
    options.intra_op_num_threads = target.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "operator")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=PROVIDERS)
    wall, cpu = time.perf_counter(), time.thread_time()
    runs = 0
    while runs < LEAST_RUNS or (runs < RUNS and time.perf_counter() - wall < SECONDS):
        session.run(None, feeds)
        runs += 1
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    profile = Path(session.end_profiling())
    events = json.loads(profile.read_text())
    profile.unlink()
    kernels: dict[str, list[int]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["args"]["op_name"] not in EDGES:
            kernels.setdefault(event["args"]["op_name"], []).append(event["dur"])
    totals = np.sum([durations[runs // WARM :] for durations in kernels.values()], axis=0, dtype=float) + 0.5 * len(kernels)
    ordered = np.sort(totals)
    middle = ordered[len(ordered) // 4 : max(3 * len(ordered) // 4, len(ordered) // 4 + 1)]
    entry = Entry(
        operator=operator, ci=ci, co=co, p10_us=float(np.percentile(totals, 10)), p50_us=float(middle.mean()), reps=len(totals), kernels="+".join(kernels)
    )
    return entry, wall / cpu if target.threads == 1 else None
