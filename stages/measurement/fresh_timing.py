"""Times an engine in several processes, each a fresh sample, until its latency budget is decided or enough have been timed."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bonsai.stages.backends.device import TimingProtocol
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.timing_config import TimingConfig
from bonsai.stages.backends.timing_records import Conditions
from bonsai.stages.graph.probes import noise_for
from bonsai.stages.measurement.asking import time_on_device
from bonsai.stages.measurement.budget_gates import verdict_within
from bonsai.stages.measurement.calm import CALM, Samples, calm_part, calm_turns, pace_of, turns_of
from bonsai.stages.measurement.interval_record import Interval
from bonsai.stages.measurement.measurements import Fresh, ProcessFigures
from bonsai.stages.measurement.process_interval import interval_between, looks_of, movement_of
from bonsai.stages.measurement.samples import SAMPLES, contention, save_samples, shared_clock, summarise, turn_count
from bonsai.stages.measurement.tail import tail_interval
from bonsai.stages.training.progress import report

ENGINE, REFERENCE = "engine", "reference"


class Question(NamedTuple):
    """What is asked of the samples.

    Attributes:
        percentile: 50, 90 or 95; a median is taken over the calm turns, a tail over all: it is what the machine does to the engine.
        clock: Clock of the figure.
        turns: Number of turns in a process.
        relative: Whether the figure is the ratio to the reference's latency, not milliseconds.
        known_ms: The reference's latency at the percentile as an earlier timing found it; None where there is none.
    """

    percentile: int
    clock: str
    turns: int
    relative: bool
    known_ms: float | None = None


def time_afresh(
    folder: Path,
    engine: EngineFile,
    reference: EngineFile | None,
    *,
    image_shape: tuple[int, ...],
    reference_shape: tuple[int, ...] | None = None,
    timing: TimingConfig,
    percentile: int,
    relative: bool,
    limit: float | None,
    tail_ms: float | None = None,
    known_ms: float | None = None,
    what: str = "timing the finished engine",
) -> Fresh:
    """Time an engine in new processes; the caller holds the device.

    Args:
        folder: Receives a file of samples for each process.
        engine: The engine.
        reference: The dense engine or an earlier one, timed in turns with it; None where there is none here.
        image_shape: (channels, height, width) of the engine.
        reference_shape: That of the reference; None for the same.
        timing: The protocol, whose runs are shared among the fewest processes.
        percentile: 50, 90 or 95.
        relative: Whether the figure is the ratio to the reference's latency, not milliseconds.
        limit: Limit of the figure. None if there is nothing to decide; then the fewest processes are enough.
        tail_ms: Limit of the engine's p99; None if there is none.
        known_ms: The reference's latency at the percentile in an earlier timing; if the machine is slower now, its result is trusted less.
        what: Description of the work in the progress lines.

    Raises:
        TimingFailed: A process crashed, was ended, or could not open an engine.
    """
    config, verdict = timing.in_process(), timing.verdict
    engines = {name: one.model_copy(update={"file": one.file.resolve()}) for name, one in ((ENGINE, engine), (REFERENCE, reference)) if one is not None}
    (batch,) = {one.target.batch for one in engines.values()}
    images = noise_for({ENGINE: image_shape, **({} if reference is None else {REFERENCE: reference_shape or image_shape})}, batch)
    question = Question(percentile, shared_clock((one.target for one in engines.values()), percentile), turn_count(config), relative, known_ms)
    protocol = TimingProtocol(timing=config, clock=question.clock, percentile=percentile, once=True)
    looks = (verdict.processes,) if limit is None and tail_ms is None else looks_of(verdict.processes, verdict.most)
    samples, conditions = list[Samples](), list[Conditions]()
    for look in looks:
        while len(samples) < look:
            timed = time_on_device(engine.target, engines, images, protocol)
            samples.append(timed.samples)
            conditions += [timed.conditions] if timed.conditions is not None else []
            save_samples(folder / SAMPLES.replace(".", f"-{len(samples)}."), samples[-1])
            report(what, done=len(samples), total=look, unit="process")
        figures = figures_of(samples, question)
        interval = interval_of(figures, question, looks=len(looks))
        tail = None if tail_ms is None else tail_interval([process[ENGINE] for process in samples], looks=len(looks))
        sure = limit is None or (verdict_within(interval.low, interval.high, limit) != "undecided" and interval.processes >= verdict.processes)
        if sure and (tail_ms is None or (tail is not None and verdict_within(tail.low, tail.high, tail_ms) != "undecided")):
            break
    if interval.processes < verdict.processes:  # the machine was not calm for long enough: all turns of all processes count
        figures = [_figure(process, question, pace=None) for process in samples]
        interval = interval_of(figures, question, looks=len(looks))
    pooled, calm = _pooled(samples), samples
    if reference is not None:
        calm = [calm_part(process, question.clock, question.turns, REFERENCE) for process, found in zip(samples, figures, strict=True) if found.figure]
    medians = _pooled(calm)
    latencies = {name: summarise(values, question.clock).with_median(summarise(medians[name], question.clock)) for name, values in pooled.items()}
    return Fresh(
        percentile=percentile,
        engine=latencies[ENGINE],
        reference=latencies.get(REFERENCE),
        processes=tuple(figures),
        interval=interval,
        contention=contention(pooled),
        tail=tail,
        conditions=tuple(conditions),
    )


def _pooled(samples: Sequence[Samples]) -> Samples:
    return {name: np.concatenate([process[name] for process in samples], axis=1) for name in samples[0]}


def figures_of(samples: Sequence[Samples], question: Question) -> list[ProcessFigures]:
    """Return what each process found, the reference's pace being that of all of them."""
    pace = None
    if question.percentile == 50 and all(REFERENCE in process for process in samples):
        pace = pace_of([turns_of(process, question.clock, question.turns)[REFERENCE] for process in samples])
    return [_figure(process, question, pace) for process in samples]


def interval_of(figures: Sequence[ProcessFigures], question: Question, *, looks: int) -> Interval:
    """Return the interval over the processes that count."""
    counted = [process for process in figures if process.figure is not None]
    if len(counted) < 2:
        return Interval(found=math.nan, low=0, high=math.inf, processes=len(counted), spread=math.inf)
    dense = [process.reference_ms for process in counted if process.reference_ms is not None]
    movement = movement_of(dense) if question.relative else 0.0
    if question.known_ms is not None and dense:
        slower = math.log(float(np.median(dense)) / question.known_ms)
        movement = max(movement, slower if slower > CALM else 0.0)
    return interval_between([process.figure or 0 for process in counted], [process.error for process in counted], looks=looks, movement=movement)


def milliseconds_of(fresh: Fresh) -> Interval:
    """Return the interval of the engine's milliseconds, also where the figure is a ratio."""
    counted = [process for process in fresh.processes if process.milliseconds is not None]
    return interval_between([process.milliseconds or 0 for process in counted], [process.error for process in counted])


def _figure(process: Samples, question: Question, pace: float | None) -> ProcessFigures:
    """Return what one process found over its calm turns; engine and reference drift together, so the error of a ratio is from ratios, turn by turn."""
    turns = turns_of(process, question.clock, question.turns)
    count = len(turns[ENGINE])
    chosen = range(count) if pace is None else calm_turns(turns[REFERENCE], pace)
    if not chosen:
        return ProcessFigures(figure=None, error=0, milliseconds=None, reference_ms=None, calm=0)
    ms = {name: float(np.percentile(np.concatenate([found[turn] for turn in chosen]), question.percentile)) / 1e6 for name, found in turns.items()}
    by_turn = {name: np.array([np.percentile(found[turn], question.percentile) for turn in chosen]) for name, found in turns.items()}
    logs = np.log(by_turn[ENGINE] / by_turn[REFERENCE] if question.relative else by_turn[ENGINE])
    return ProcessFigures(
        figure=ms[ENGINE] / ms[REFERENCE] if question.relative else ms[ENGINE],
        error=float(logs.std(ddof=1) / np.sqrt(len(logs))) if len(logs) > 1 else 0.0,
        milliseconds=ms[ENGINE],
        reference_ms=ms.get(REFERENCE),
        calm=len(chosen) / count,
    )
