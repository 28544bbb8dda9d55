"""What a CI system reads, read back as it does."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tiny_footprint import a_footprint

from bonsai.pipeline.cli.ci import annotations, ci_job, junit_xml, markdown_summary
from bonsai.pipeline.compare.comparison import Outcome
from bonsai.profiles.errors import ConfigError, visible
from bonsai.stages.errors import BuildError
from bonsai.stages.measurement.latency import Latency
from bonsai.stages.measurement.measurements import Accuracy, Gate, Row

MET = Gate(name="latency", limit=0.5, found=0.4, unit="of dense FP32 p50", verdict="met", note="estimated")
MISSED = Gate(name="size", limit=1, found=2, unit="MB", verdict="missed")
ENGINE = Row(
    network="pruned",
    precision="int8",
    shipped=True,
    accuracy=Accuracy(top1=0.9, low=0.8, high=0.95, n=100, measured_by="engine"),
    latency=Latency(source="estimated", clock="roofline", p50=0.5),
    size_bytes=2_000_000,
    parameters=1000,
    macs=1000,
)
UNDECIDED = Gate(name="latency", limit=0.5, found=0.495, unit="of dense FP32 p50", verdict="undecided", low=0.48, high=0.51)
PACKAGE = Outcome(profile="t4", device="Tesla T4", exit_code=3, package="net--t4", rows=(ENGINE,), gates=(MET, MISSED))
FAILED = Outcome(profile="pi", exit_code=4, error="compiler said \x1b[31mno\x1b[0m <&>\n100%, given: a")


@pytest.fixture(autouse=True)
def _outside_of_github(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def check_junit(text: str) -> ET.Element:
    """Check what readers of JUnit files rely on: counts of suites and of the whole, and named cases with one verdict each."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    totals = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in root:
        assert suite.tag == "testsuite"
        assert suite.get("name")
        assert suite[0].tag == "properties"
        assert {child.tag for child in suite[1:]} == {"testcase"}
        cases = suite.findall("testcase")
        assert len({case.get("name") for case in cases}) == len(cases)
        assert all(case.get("classname") and case.get("name") for case in cases)
        assert all(len(case.findall("failure") + case.findall("error")) <= 1 for case in cases)
        found = {"tests": len(cases), "failures": len(suite.findall("*/failure")), "errors": len(suite.findall("*/error"))}
        found["skipped"] = len(suite.findall("*/skipped"))
        assert {key: int(suite.attrib[key]) for key in found} == found
        totals = {key: totals[key] + found[key] for key in totals}
    assert {key: int(root.attrib[key]) for key in totals} == totals
    return root


@pytest.mark.parametrize(("allowed", "verdict", "level"), [(False, "failure", "error"), (True, "skipped", "warning")])
def test_an_undecided_gate_fails_the_job_unless_it_may_be_undecided(allowed: bool, verdict: str, level: str) -> None:
    outcome = Outcome(profile="t4", exit_code=0 if allowed else 3, package="net--t4", rows=(ENGINE,), gates=(UNDECIDED,), allow_undecided=allowed)
    root = check_junit(junit_xml("net", [outcome]))
    (found,) = root.findall(f"*/testcase/{verdict}")
    assert found.get("message") == "latency: 0.495 (0.48 to 0.51) of dense FP32 p50, limit 0.5: UNDECIDED"
    assert annotations("net", [outcome])[0].startswith(f"::{level} title=net--t4%3A gate latency undecided::latency: 0.495")
    assert "limit 0.5: UNDECIDED" in markdown_summary("net", [outcome], "")


def test_junit_has_a_suite_per_profile_and_a_case_per_gate() -> None:
    root = check_junit(junit_xml("net", [PACKAGE, FAILED]))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "1")
    good, bad = root.findall("testsuite")
    assert [case.get("name") for case in good.findall("testcase")] == ["latency", "size"]
    failure = good.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == MISSED.sentence == "size: 2 MB, limit 1: MISSED"
    assert "(estimated)" in (good.findtext("testcase/system-out") or "")
    assert good.find("properties/property[@name='latency_source'][@value='estimated']") is not None
    assert (bad.get("name"), bad.find("testcase/error").get("type")) == ("net--pi", "exit code 4")  # type: ignore[union-attr]


def test_junit_tells_the_figures_of_the_shipped_engine() -> None:
    shipped = next(row for row in PACKAGE.rows if row.shipped).model_copy(update={"footprint": a_footprint(energy_mj=None)})
    (suite,) = check_junit(junit_xml("net", [PACKAGE.model_copy(update={"rows": (shipped,)})])).findall("testsuite")
    told = {found.get("name"): found.get("value") for found in suite.findall("properties/property")}
    assert (told["memory_mb"], told["cold_start_s"]) == ("12", "0.312")
    assert float(told["size_mb"] or 0) == shipped.size_bytes / 1e6
    assert "energy_mj" not in told


def test_junit_holds_no_character_that_xml_cannot() -> None:
    error = check_junit(junit_xml("net", [FAILED])).find("testsuite/testcase/error")
    assert error is not None
    assert error.get("message") == "compiler said ?[31mno?[0m <&>"
    assert error.text == "compiler said ?[31mno?[0m <&>\n100%, given: a"


def test_annotations_are_escaped_as_the_runner_undoes_it() -> None:
    first, second = annotations("net, 1:2", [PACKAGE, FAILED])
    assert first == "::error title=net--t4%3A gate size missed::size: 2 MB, limit 1: MISSED"
    title, message = re.fullmatch(r"::error title=(.*?)::(.*)", second).groups()  # type: ignore[union-attr]
    assert "\n" not in second
    assert title == "net%2C 1%3A2--pi%3A failed%2C code 4"
    assert message.replace("%0A", "\n").replace("%25", "%") == FAILED.error


def test_the_summary_has_the_table_every_gate_and_every_error() -> None:
    text = markdown_summary("net", [PACKAGE, FAILED], "Saved 10 s.")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert "- latency: 0.4 of dense FP32 p50, limit 0.5: met (estimated)" in text
    assert "**net--pi failed, code 4**" in text
    assert visible(FAILED.error) in text
    assert text.endswith("Saved 10 s.\n\n")


def test_a_job_appends_to_githubs_page_and_prints_commands_there_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ci_job(tmp_path / "ci", "net") as report:
        report([PACKAGE], "")
    assert capsys.readouterr().out == ""
    page = tmp_path / "page.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    with ci_job(tmp_path / "ci", "net") as report:
        report([PACKAGE], "")
    assert page.read_text() == "before\n" + (tmp_path / "ci" / "summary.md").read_text()
    assert capsys.readouterr().out.splitlines() == annotations("net", [PACKAGE])
    with ci_job(tmp_path / "ci", "net", as_json=True) as report:
        report([PACKAGE], "")
    shown = capsys.readouterr()
    assert (shown.out, shown.err.splitlines()) == ("", annotations("net", [PACKAGE]))


@pytest.mark.parametrize(("error", "code"), [(ConfigError("no recipe"), 2), (BuildError("no engine"), 4), (KeyError("a bug"), 1)], ids=repr)
def test_a_run_that_ends_by_an_error_reports_it_and_passes_it_on(tmp_path: Path, error: Exception, code: int) -> None:
    with pytest.raises(type(error)), ci_job(tmp_path, "configs/net.yaml"):
        raise error
    root = check_junit((tmp_path / "junit.xml").read_text())
    found = root.find("testsuite[@name='net']/testcase[@name='run']/error")
    assert found is not None
    assert (found.get("type"), found.text) == (f"exit code {code}", str(error))
    assert f"**net failed, code {code}**" in (tmp_path / "summary.md").read_text()


def test_a_page_that_cannot_be_written_changes_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "away" / "page.md"))
    with ci_job(tmp_path / "ci", "Net.yaml") as report:
        report([Outcome(profile="t4", exit_code=5, error="no device")], "", "net")
    assert "the summary is not on the job's page" in capsys.readouterr().err
    assert check_junit((tmp_path / "ci" / "junit.xml").read_text()).find("testsuite[@name='net--t4']") is not None


def test_a_run_that_is_killed_leaves_no_older_runs_report(tmp_path: Path) -> None:
    with ci_job(tmp_path, "net") as report:
        report([PACKAGE], "")
    with ci_job(tmp_path, "net"):
        assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ci_job(None, "net") as report:
        report([PACKAGE], "")
    assert list(tmp_path.iterdir()) == []


def test_a_warning_stands_where_ci_looks() -> None:
    text = "the dense network learnt nothing: 10.90%"
    undecided = Gate(name="accuracy drop", limit=0.02, found=0.01, unit="top-1", verdict="undecided")
    warned = PACKAGE.model_copy(update={"gates": (MET, undecided), "warnings": (text,)})
    root = check_junit(junit_xml("net", [warned]))
    assert root.get("failures") == "1"
    assert {p.get("name"): p.get("value") for p in root.iter("property")}["warning_1"] == text
    summary = markdown_summary("net", [warned], "")
    assert f"- **warning: {text}**" in summary
    assert "accuracy drop UNDECIDED |" in summary
    gate, warning = annotations("net", [warned])
    assert gate.startswith("::error title=net--t4%3A gate accuracy drop undecided::")
    assert warning == "::warning title=net--t4%3A no plain verdict::the dense network learnt nothing: 10.90%25"


def test_that_there_is_no_reference_stands_where_ci_looks() -> None:
    untrained = ENGINE.model_copy(update={"network": "dense", "precision": "fp32", "shipped": False, "accuracy": None})
    outcome = PACKAGE.model_copy(update={"rows": (untrained, ENGINE)})
    said = "no dense reference was trained, so no accuracy drop is known"
    found = check_junit(junit_xml("net", [outcome])).find("testsuite/properties/property[@name='reference']")
    assert found is not None
    assert found.get("value") == said
    assert f"- {said}\n" in markdown_summary("net", [outcome], "")
    assert said not in markdown_summary("net", [PACKAGE], "")
