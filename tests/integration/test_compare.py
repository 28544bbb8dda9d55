"""Targets side by side: one trunk, and a target that fails leaves the others alone."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_comparison import SETTINGS, Compared, config

from bonsai import compare
from bonsai.pipeline.compare.comparison import Comparison
from bonsai.pipeline.run.conduct import Growth
from bonsai.profiles.errors import BonsaiError
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.errors import BuildError
from bonsai.stages.store.manifest import MANIFEST
from bonsai.stages.store.store import Step, Store

TINY, WIDE, HOPELESS, AWAY, NARROW = (config(name) for name in ("tiny", "tiny-wide", "tiny-hopeless", "tiny-away", "tiny-narrow"))


def step_that_raises(store: Path, error: Exception, profile: str) -> Step:
    """Return a step that fails where the first package is written, at the end of a branch."""
    run = Store(store).run

    def step(stage: Callable[..., Any], /, **inputs: Any) -> Any:
        if stage.__name__ == "package" and inputs["profile"].name == profile:
            raise error
        return run(stage, **inputs)

    return step


def test_the_name_is_the_function_after_its_module_was_imported_too() -> None:
    import bonsai.pipeline.compare.comparing

    assert bonsai.compare is compare is bonsai.pipeline.compare.comparing.compare


def test_a_profile_that_fails_is_an_outcome_and_the_others_end_with_packages(compared: Compared) -> None:
    outcomes = compared.comparison.outcomes
    assert [(outcome.profile, outcome.exit_code) for outcome in outcomes] == [("tiny-wide", 0), ("tiny-hopeless", 2), ("tiny-away", 5), ("tiny-narrow", 0)]
    assert "the latency budget cannot be met" in outcomes[1].error
    assert "runtime 'tensorrt'" in outcomes[2].error
    assert compared.comparison.exit_code == 2
    assert all(gate.passed for outcome in outcomes for gate in outcome.gates)
    assert outcomes[0].shipped is not None
    assert outcomes[3].shipped is not None
    assert outcomes[3].shipped.macs < outcomes[0].shipped.macs
    for outcome in (outcomes[0], outcomes[3]):
        assert outcome.estimated
        verify_package(Path(outcome.folder))
        dense, shipped = outcome.rows[0].latency, outcome.rows[-1].latency
        assert dense is not None
        assert shipped is not None
        assert outcome.speedup_fp32 == dense.p50 / shipped.p50 > 1
        assert outcome.speedup_fp16 is None


def test_failures_that_need_no_training_are_said_before_it(compared: Compared) -> None:
    first_training = next(place for place, line in enumerate(compared.log) if line.startswith("trunk"))
    failures = [place for place, line in enumerate(compared.log) if "FAILED" in line]
    assert len(failures) == 2
    assert max(failures) < first_training
    assert compared.log[failures[0]].startswith("tiny-away: FAILED (code 5), the other profiles go on: ")


def test_branches_side_by_side_share_one_trunk_and_log_under_their_names(compared: Compared) -> None:
    branches = {line.split(":")[0] for line in compared.log if "branch  step" in line}
    assert branches == {"tiny-wide", "tiny-narrow"}
    trunks = []
    for name in branches:
        lineage = json.loads((compared.store / "packages" / f"tiny--{name}" / MANIFEST).read_text())["lineage"]
        trunks.append({ancestor["artifact"] for ancestor in lineage if ancestor["artifact"].startswith("train_dense/")})
    assert trunks[0] == trunks[1]
    assert len(trunks[0]) == len(list((compared.store / "train_dense").iterdir()))


def test_the_cost_is_that_of_the_manifests(compared: Compared) -> None:
    def seconds(*stages: str) -> float:
        return sum(json.loads(file.read_text())["seconds"] for stage in stages for file in compared.store.glob(f"{stage}/*/{MANIFEST}"))

    cost = compared.comparison.cost
    assert cost.runs == 2
    assert cost.trunk == pytest.approx(seconds("train_dense"))
    assert cost.repeated >= seconds("train_dense", "prepare")
    stages = [folder.name for folder in compared.store.iterdir() if not folder.name.startswith(".") and folder.name not in {"packages", "comparisons", "ci"}]
    assert seconds("train_dense", "prepare", "recover", "measure") < cost.together <= seconds(*stages) + 1e-6


def test_the_files_hold_what_was_found(compared: Compared) -> None:
    folder = compared.store / "comparisons" / "tiny"
    assert {file.name for file in folder.iterdir()} == {"comparison.json", "comparison.csv", "report.html", "report.md"}
    report = (folder / "report.md").read_text()
    assert report.index(compared.comparison.cost.sentence) < report.index("tiny-hopeless") < report.index("# tiny--tiny-wide")
    assert "the latency budget cannot be met" in report
    assert Comparison.model_validate_json((folder / "comparison.json").read_text()) == compared.comparison
    lines = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    assert [line["profile"] for line in lines if line["latency_source"] == "estimated"] == ["tiny-wide", "tiny-narrow"]
    assert [file.name for file in folder.parent.iterdir() if file.name.startswith((".new", ".old"))] == []


def test_a_late_failure_leaves_the_others_alone_in_whatever_order_the_caller_runs_them(compared: Compared) -> None:
    seen = []

    def backwards(branches: Mapping[str, Growth]) -> dict[str, Package | BonsaiError]:
        seen.extend(reversed(branches))
        return {name: branches[name]() for name in seen}

    step = step_that_raises(compared.store, BuildError("no engine\n  do: nothing"), "tiny-narrow")
    found = compare(TINY, [WIDE, NARROW], SETTINGS, store=compared.store, step=step, branch_runner=backwards)
    assert seen == ["tiny-narrow", "tiny-wide"]
    assert [(outcome.exit_code, outcome.error[:9]) for outcome in found.outcomes] == [(0, ""), (4, "no engine")]
    assert found.outcomes[0] == compared.comparison.outcomes[0]
    assert found.cost.runs == 1


def test_nothing_is_trained_where_no_profile_can_be_grown(tmp_path: Path) -> None:
    found = compare(TINY, [HOPELESS, AWAY], SETTINGS, store=tmp_path)
    assert [outcome.exit_code for outcome in found.outcomes] == [2, 5]
    assert not (tmp_path / "train_dense").exists()
    assert found.cost.sentence == "Stages took 0.0 s (measured, each stage's last run); with 0 finished there was nothing to share."
