"""Time of one operator on this machine, from the profile of the runtime's kernels."""

import time
from pathlib import Path

import numpy as np

from bonsai.profiles.latency import Entry
from bonsai.profiles.operator_class import OperatorClass
from bonsai.profiles.schema import Target
from bonsai.stages.backends.kernel_profile import middle_mean, open_profiled
from bonsai.stages.graph.single_operator import single_operator_graph

RUNS, LEAST_RUNS, SECONDS = 350, 30, 0.4
"""Most and fewest runs of one operator. After the seconds, a slow one gets no more than the fewest."""
EDGES = {"Transpose", "ReorderInput", "ReorderOutput", "QuantizeLinear", "DequantizeLinear", "Identity", "Reorder", "Subgraph", "MaxPool"}
"""Conversions at the edges of a graph of one operator. The whole network does not have them. The last three are OpenVINO's."""
LEAST_US = 0.01
"""Time of an operator that the runtime fuses into its neighbours. It is not 0, because tables are fitted by ratios."""


def measure_operator(operator: OperatorClass, ci: int, co: int, target: Target, *, scratch: Path) -> tuple[Entry, float | None]:
    """Time an operator in its context, on a runtime that `measures_operators`; one with a precision of its own in that.

    Returns:
        The table's entry, and wall time over CPU time of the runs (1 on a quiet machine), None with several threads.
    """
    model, feeds = single_operator_graph(operator, ci, co, batch=target.batch, precision=target.precision)
    profiled = open_profiled(model.SerializeToString(), target, scratch)
    wall, cpu = time.perf_counter(), time.thread_time()
    runs = 0
    while runs < LEAST_RUNS or (runs < RUNS and time.perf_counter() - wall < SECONDS):
        profiled.run(feeds)
        runs += 1
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    edges = EDGES - {"Subgraph", "MaxPool"} if operator.is_light else EDGES  # these are then the operator itself
    kernels = [kernel for kernel in profiled.finish() if kernel.op not in edges]
    totals = np.maximum(np.sum([kernel.microseconds for kernel in kernels], axis=0), LEAST_US) if kernels else np.full(runs, LEAST_US)
    entry = Entry(
        operator=operator,
        ci=ci,
        co=co,
        p10_us=float(np.percentile(totals, 10)),
        p50_us=middle_mean(totals),
        reps=runs,
        kernels="+".join(kernel.op for kernel in kernels),
    )
    return entry, wall / cpu if target.threads == 1 else None
