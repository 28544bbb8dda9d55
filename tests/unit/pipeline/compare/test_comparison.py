import csv
import io
from pathlib import Path

import pytest
from tiny_footprint import a_footprint

from bonsai.pipeline.compare.comparison import Comparison, Cost, Outcome, columns_of, cost_of, header_of, outcome_of, show_cells, to_csv
from bonsai.profiles.errors import BudgetError
from bonsai.profiles.loader import load_profile
from bonsai.profiles.located_yaml import Record
from bonsai.stages.measurement.latency import TABLE_ELSEWHERE, Latency
from bonsai.stages.measurement.measurements import Accuracy, Gate, Row
from bonsai.stages.store.artifact import Artifact
from bonsai.stages.store.manifest import read_manifest, write_manifest
from bonsai.stages.store.store import Store, stage
from bonsai.stages.tasks.classification.judging import CLASSIFICATION

COST = Cost(runs=2, together=100.0, repeated=60.0, trunk=50.0)


class Config(Record):
    value: int


class Number(Artifact):
    value: int


@stage(version=1)
def train_dense(out_dir: Path, config: Config) -> Number:
    return Number(folder=out_dir, value=config.value)


@stage(version=1)
def recover(out_dir: Path, trunk: Number, config: Config) -> Number:
    return Number(folder=out_dir, value=trunk.value + config.value)


def row(network: str, precision: str, p50: float | None, *, shipped: bool = False, source: str = "measured", clock: str = "wall") -> Row:
    latency = None if p50 is None else Latency(source=source, clock=clock, p50=p50)  # type: ignore[arg-type]
    accuracy = Accuracy(top1=0.9, low=0.8, high=0.95, n=100, measured_by="engine")
    facts = {"network": network, "precision": precision, "shipped": shipped, "accuracy": accuracy, "latency": latency}
    return Row.model_validate({**facts, "size_bytes": 2_000_000, "parameters": 500_000, "macs": 40_000_000})


def package(**changes: object) -> Outcome:
    met = Gate(name="latency", limit=0.5, found=0.25, unit="of dense FP32 p50", verdict="met")
    rows = (row("dense", "fp32", 4.0), row("pruned", "int8", 1.0, shipped=True))
    facts = {"profile": "a", "exit_code": 0, "package": "r--a", "rows": rows, "gates": (met,), "speedup_fp32": 4.0}
    return Outcome.model_validate({**facts, **changes})


def failure(code: int, profile: str = "b") -> Outcome:
    return Outcome(profile=profile, exit_code=code, error="no such device\n  given: t4")


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((package(), package()), 0),
        ((package(), package(exit_code=3)), 3),
        ((package(exit_code=3), failure(5), failure(2)), 5),
        ((failure(2),), 2),
    ],
)
def test_the_exit_code_is_the_first_errors_else_that_of_a_missed_gate(outcomes: tuple[Outcome, ...], code: int) -> None:
    assert Comparison(recipe="r", outcomes=outcomes, cost=COST).exit_code == code


def test_a_comparison_is_read_back_as_it_was_written() -> None:
    comparison = Comparison(recipe="r", outcomes=(package(), failure(4)), cost=COST)
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison


def test_an_error_becomes_an_outcome_with_its_message_and_code() -> None:
    found = outcome_of(load_profile("t4"), BudgetError("below the floor"), Path("packages"))
    assert (found.profile, found.device, found.exit_code, found.error) == ("t4", "Tesla T4", 2, "below the floor")
    assert (found.rows, found.package, found.shipped) == ((), "", None)


def test_the_table_shows_how_many_times_as_fast_and_calls_estimates_so() -> None:
    rows = (row("dense", "fp32", 4.0, source="estimated"), row("pruned", "fp16", 1.6, shipped=True, source="estimated"))
    shown = dict(zip(header_of(CLASSIFICATION.metric), show_cells(package(rows=rows, speedup_fp32=2.5, speedup_fp16=None)), strict=True))
    assert shown["p50 ms"] == "1.600 (est.)"
    assert (shown["x dense FP32"], shown["x dense FP16"]) == ("2.50", "-")
    assert (shown["latency is"], shown["size MB"], shown["gates"]) == ("estimated", "2.00", "1 met")


def test_the_table_and_the_csv_say_that_a_latency_table_was_measured_elsewhere() -> None:
    estimates = [
        row(network, precision, ms, source="estimated", clock=TABLE_ELSEWHERE, shipped=shipped)
        for network, precision, ms, shipped in (("dense", "fp32", 4.0, False), ("pruned", "int8", 1.6, True))
    ]
    outcome = package(rows=tuple(estimates))
    shown = dict(zip(header_of(CLASSIFICATION.metric), show_cells(outcome), strict=True))
    assert (shown["p50 ms"], shown["latency is"]) == ("1.600 (est., table measured elsewhere)", "estimated, table measured elsewhere")
    (line,) = csv.DictReader(io.StringIO(to_csv([outcome])))
    assert line["latency_source"] == "estimated, table measured elsewhere"


def test_the_table_names_missed_gates_and_codes_of_errors() -> None:
    missed = Gate(name="size", limit=1, found=2, unit="MB", verdict="missed")
    unsure = Gate(name="latency", limit=1, found=1, unit="ms", verdict="undecided")
    assert show_cells(package(gates=(missed,)))[-1] == "size MISSED"
    assert show_cells(package(gates=(unsure, missed)))[-1] == "size MISSED; latency UNDECIDED"
    assert show_cells(failure(5))[-1] == "FAILED, code 5"


def test_the_csv_has_a_line_per_profile_and_empty_cells_for_what_is_not_known() -> None:
    first, second = csv.DictReader(io.StringIO(to_csv([package(), failure(5)])))
    assert set(first) == set(columns_of(CLASSIFICATION.metric))
    assert (first["speedup_dense_fp32"], first["speedup_dense_fp16"], first["p50_ms"], first["gates_met"]) == ("4.0", "", "1.0", "1")
    assert (first["gates_missed"], first["gates_undecided"]) == ("0", "0")
    assert (second["profile"], second["exit_code"], second["top1"]) == ("b", "5", "")
    assert second["error"].startswith("no such device")


def test_memory_energy_and_start_stand_in_table_and_csv_where_the_engine_was_run_alone() -> None:
    def shown(**figures: object) -> tuple[list[str], list[str]]:
        shipped = row("pruned", "int8", 1.0, shipped=True).model_copy(update={"footprint": a_footprint(**figures)})
        outcome = package(rows=(row("dense", "fp32", 4.0), shipped))
        table = dict(zip(header_of(CLASSIFICATION.metric), show_cells(outcome), strict=True))
        (line,) = csv.DictReader(io.StringIO(to_csv([outcome])))
        return [table[name] for name in ("memory MB", "energy mJ", "cold start s")], [line[name] for name in ("memory_mb", "energy_mj", "cold_start_s")]

    assert shown() == (["12", "5", "0.31"], ["12.0", "5.0", "0.312"])
    assert shown(energy_mj=None)[1] == ["12.0", "", "0.312"]
    table = dict(zip(header_of(CLASSIFICATION.metric), show_cells(package()), strict=True))
    assert (table["memory MB"], table["energy mJ"], table["cold start s"]) == ("-", "-", "-")


def test_what_was_not_compared_with_a_reference_is_called_so() -> None:
    untrained = row("dense", "fp32", 4.0).model_copy(update={"accuracy": None})
    outcome = package(rows=(untrained, row("pruned", "int8", 1.0, shipped=True)))
    assert (package().reference, outcome.reference) == ("", "no dense reference was trained, so no accuracy drop is known")
    assert show_cells(outcome)[-1] == "1 met, no reference"
    (line,) = csv.DictReader(io.StringIO(to_csv([outcome])))
    assert (line["top1"], line["speedup_dense_fp32"]) == ("0.9", "4.0")


def take(artifact: Artifact, seconds: float) -> None:
    write_manifest(artifact.folder, read_manifest(artifact.folder).model_copy(update={"seconds": seconds}))


def test_the_cost_counts_shared_stages_once_and_what_separate_runs_would_repeat(store: Store) -> None:
    trunk = store.run(train_dense, config=Config(value=0))
    branches = {name: store.run(recover, trunk=trunk, config=Config(value=value)) for value, name in enumerate("abc")}
    take(trunk, 100.0)
    for branch in branches.values():
        take(branch, 10.0)
    cost = cost_of({name: [trunk, branch, branch] for name, branch in branches.items()})
    assert cost == Cost(runs=3, together=130.0, repeated=200.0, trunk=100.0)
    assert "Sharing saved 200.0 s (61%)" in cost.sentence


def test_one_finished_profile_shares_nothing(store: Store) -> None:
    trunk = store.run(train_dense, config=Config(value=0))
    take(trunk, 100.0)
    assert cost_of({"a": [trunk]}).repeated == 0
    assert "with 1 finished there was nothing to share" in cost_of({"a": [trunk]}).sentence
