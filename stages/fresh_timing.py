"""Times an engine in several processes, each a fresh sample, until its budget is decided or enough have been timed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from profiles.schema import Target
from stages.backends.process_timing import Request, time_in_process
from stages.backends.timing import SAMPLES, TimingConfig, contention, gating_clock, percentiles_of_parts, summarise
from stages.measurements import Fresh, ProcessFigures
from stages.process_interval import interval_between, looks_of, movement_of
from stages.timing_lock import inheritable
from stages.training.progress import report
from stages.verdicts import verdict_within

ENGINE, REFERENCE = "engine", "reference"
Samples = dict[str, np.ndarray]


def time_afresh(
    folder: Path,
    engine: Path,
    reference: Path | None,
    *,
    target: Target,
    image_shape: tuple[int, int, int],
    timing: TimingConfig,
    percentile: int,
    relative: bool,
    limit: float | None,
) -> Fresh:
    """Time an engine in processes of their own; the caller holds the machine's lock for timing.

    Args:
        folder: Receives a file of samples for each process.
        engine: File of the engine.
        reference: File of the dense engine, timed in turns with it; None where there is none here.
        target: Batch, threads and runtime.
        image_shape: (channels, height, width).
        timing: The protocol, whose runs are shared among the fewest processes.
        percentile: 50, 90 or 95.
        relative: Whether the figure is the ratio to the dense engine, not milliseconds.
        limit: Of the figure; None where nothing is to be decided, and the fewest processes do.

    Raises:
        TimingFailed: A process crashed, was ended, or could not open an engine.
    """
    clock, verdict = gating_clock(target, percentile), timing.verdict
    looks = (verdict.processes,) if limit is None else looks_of(verdict.processes, verdict.most)
    files = {ENGINE: engine.resolve()} | ({REFERENCE: reference.resolve()} if reference is not None else {})
    samples: list[Samples] = []
    figures: list[ProcessFigures] = []
    for look in looks:
        while len(samples) < look:
            place = folder.resolve() / SAMPLES.replace(".", f"-{len(samples) + 1}.")
            request = Request(engines=files, target=target, image_shape=image_shape, timing=timing.in_process(), samples=place)
            samples.append(time_in_process(request, inheritable()))
            figures.append(figures_of(samples[-1], clock, percentile, relative=relative))
            report("timing the finished engine", done=len(samples), total=look, unit="process", figure=figures[-1].figure)
        movement = movement_of([figure.reference_ms for figure in figures if figure.reference_ms is not None]) if relative else 0.0
        interval = interval_between([figure.figure for figure in figures], [figure.error for figure in figures], looks=len(looks), movement=movement)
        if limit is not None and verdict_within(interval, limit) != "undecided":
            break
    return Fresh(
        percentile=percentile,
        engine=summarise(_pooled(samples, ENGINE), clock),
        reference=summarise(_pooled(samples, REFERENCE), clock) if reference is not None else None,
        processes=tuple(figures),
        interval=interval,
        contention=contention({name: _pooled(samples, name) for name in files}),
    )


def figures_of(samples: Samples, clock: str, percentile: int, *, relative: bool) -> ProcessFigures:
    """Return what one process found; engine and dense engine drift together, so the error of a ratio is from ratios, part by part."""
    whole = {name: summarise(values, clock).at(percentile) for name, values in samples.items()}
    parts = {name: percentiles_of_parts(values, clock, percentile) for name, values in samples.items()}
    logs = np.log(parts[ENGINE] / parts[REFERENCE] if relative else parts[ENGINE])
    return ProcessFigures(
        figure=whole[ENGINE] / whole[REFERENCE] if relative else whole[ENGINE],
        error=float(logs.std(ddof=1) / np.sqrt(len(logs))),
        milliseconds=whole[ENGINE],
        reference_ms=whole.get(REFERENCE),
    )


def _pooled(samples: Sequence[Samples], name: str) -> np.ndarray:
    return np.concatenate([process[name] for process in samples], axis=1)
