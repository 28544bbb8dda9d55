"""Judges everything that a budget limits: latency, its 99th percentile, memory, the size of the file, energy."""

from collections.abc import Iterable
from typing import NamedTuple

from bonsai.profiles.budget import Budget
from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Precision
from bonsai.stages.measurement.footprint import Footprint
from bonsai.stages.measurement.interval_record import Interval
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import Fresh, Gate, Verdict
from bonsai.stages.measurement.tail import RUNS

LATENCY, TAIL, MEMORY, SIZE, ENERGY = BUDGET_GATES = ("latency", "p99", "memory", "size", "energy")
"""Names of the gates of a budget."""
AT = " at "
"""Stands between the name of a gate and the point that it is judged at: ``latency at batch 8``."""
FEW_RUNS = f"fewer than {RUNS:,} runs: this is the p95, which the p99 is not below"


class Figure(NamedTuple):
    """A figure that a budget limits.

    Attributes:
        interval: Its 95 % interval; None where it has none.
        least: Whether it is only a lower bound.
    """

    value: float
    interval: Interval | None = None
    least: bool = False
    note: str = ""


def is_of_budget(gate: Gate) -> bool:
    """Return whether a gate is one of a budget: the target's, or a point's."""
    return gate.name.partition(AT)[0] in BUDGET_GATES


def named_at(gates: Iterable[Gate], point: str) -> tuple[Gate, ...]:
    """Return the gates of a point, which its label tells from the target's."""
    return tuple(gate.model_copy(update={"name": f"{gate.name}{AT}{point}"}) for gate in gates)


def verdict_of(passed: bool) -> Verdict:
    """Return the verdict on a figure without an interval, which is never undecided."""
    return "met" if passed else "missed"


def verdict_within(low: float, high: float, limit: float) -> Verdict:
    """Return *met* or *missed* if the whole interval lies on one side of the limit, else *undecided*."""
    return "met" if high <= limit else "missed" if low > limit else "undecided"


def limit_of(budget: Budget, reference: Precision) -> tuple[float, str]:
    """Return a latency budget's limit and its unit: milliseconds, or a fraction of the dense engine's."""
    if budget.latency is None:
        return float(budget.latency_ms or 0), f"ms p{budget.percentile}"
    return budget.latency, f"of dense {reference.upper()} p{budget.percentile}"


def forecast_latency(dense: Latency, engine: Latency, budget: Budget, reference: Precision) -> Gate:
    """Return the latency gate, decided by one timing or by an estimate.

    Args:
        dense: Latency of the dense engine, of the same timing.
        engine: Latency of the engine.
        budget: The limit.
        reference: Precision of the dense engine.
    """
    limit, unit = limit_of(budget, reference)
    found = engine.at(budget.percentile) / (dense.at(budget.percentile) if budget.latency is not None else 1)
    note = "" if engine.source == "measured" else engine.told
    return Gate(name=LATENCY, limit=limit, found=found, unit=unit, verdict=verdict_of(found <= limit), note=note)


def judge_latency(fresh: Fresh, budget: Budget, reference: Precision) -> Gate:
    """Return the latency gate, decided by the interval of a fresh timing.

    Args:
        fresh: The timing. If the budget is a fraction of the dense engine's latency, that engine was timed in turns.
        budget: The limit.
        reference: Precision of the dense engine.
    """
    limit, unit = limit_of(budget, reference)
    return _gate(LATENCY, limit, unit, Figure(fresh.interval.found, fresh.interval))


def judge_others(fresh: Fresh, footprint: Footprint | None, size_bytes: int, budget: Budget) -> tuple[Gate, ...]:
    """Return the gates beside the latency's, decided by a fresh timing.

    Args:
        fresh: The timing.
        footprint: Memory and energy, as for `other_gates`.
        size_bytes: Size of the engine's file.
        budget: The limits.
    """
    return other_gates(budget, size_bytes, Figure(fresh.tail.found, fresh.tail) if fresh.tail is not None else tail_of(fresh.engine), footprint)


def judge_point(fresh: Fresh, footprint: Footprint | None, budget: Budget, reference: Precision, point: str) -> tuple[Gate, ...]:
    """Return the gates of a point, decided by a fresh timing there; arguments as for `judge_latency` and `judge_others`."""
    return named_at((judge_latency(fresh, budget, reference), *judge_others(fresh, footprint, 0, budget)), point)  # no point limits the size


def untold_of(budget: Budget, footprint: Footprint | None) -> dict[str, str]:
    """Return the keys of a budget that a device does not tell, with the reason."""
    reasons = {
        "memory_mb": "" if footprint is not None and footprint.memory_mb is not None else "the device does not tell the memory of a process",
        "energy_mj": "the device tells no energy" if footprint is None else footprint.meter if footprint.energy_mj is None else "",
    }
    return {key: reason for key, reason in reasons.items() if reason and getattr(budget, key) is not None}


def require_told(budget: Budget, footprint: Footprint | None, device: str) -> None:
    """Check that a device tells everything that a budget limits.

    Raises:
        ConfigError: It does not.
    """
    for key, reason in untold_of(budget, footprint).items():
        problem, fix = f"budget.{key} cannot be judged on {device}", f"remove budget.{key}, or let the device tell it"
        raise ConfigError(describe(problem, given=reason, allowed="limits on what the device tells", fix=fix))


def tail_of(latency: Latency) -> Figure:
    """Return the p99 of one timing, or a lower bound of it where it had too few runs."""
    return Figure(latency.p99) if latency.p99 is not None else Figure(latency.at(95), least=True, note=FEW_RUNS)


def other_gates(budget: Budget, size_bytes: int, tail: Figure, footprint: Footprint | None) -> tuple[Gate, ...]:
    """Return a gate for every limit of a budget beside the latency's.

    Args:
        budget: The limits.
        size_bytes: Size of the engine's file.
        tail: p99 in milliseconds.
        footprint: Memory and energy; needed where the budget limits them, which is refused before training if the device does not tell them.
    """
    gates = []
    if budget.p99_ms is not None:
        gates.append(_gate(TAIL, budget.p99_ms, "ms p99, by the wall", tail))
    if budget.memory_mb is not None:
        assert footprint is not None and footprint.memory_mb is not None
        note = f"added to the {footprint.before_mb:.4g} MB of the process without the engine"
        gates.append(_gate(MEMORY, budget.memory_mb, "MB", Figure(footprint.memory_mb, footprint.memory, note=note)))
    if budget.size_mb is not None:
        gates.append(_gate(SIZE, budget.size_mb, "MB", Figure(size_bytes / 1e6)))
    if budget.energy_mj is not None:
        assert footprint is not None and footprint.energy_mj is not None
        gates.append(_gate(ENERGY, budget.energy_mj, "mJ an inference", Figure(footprint.energy_mj, footprint.energy, note=footprint.meter)))
    return tuple(gates)


def _gate(name: str, limit: float, unit: str, figure: Figure) -> Gate:
    value, interval, least, note = figure
    if interval is None:
        verdict: Verdict = "undecided" if least and value <= limit else verdict_of(value <= limit)
        return Gate(name=name, limit=limit, found=value, unit=unit, verdict=verdict, note=note)
    verdict = verdict_within(interval.low, interval.high, limit)
    notes = [f"95 % interval; {interval.processes} processes", *([note] if note else [])]
    return Gate(name=name, limit=limit, found=value, unit=unit, verdict=verdict, note="; ".join(notes), low=interval.low, high=interval.high)
