"""Writes results for a CI system: gates as JUnit tests, a summary in Markdown, an annotation per missed gate.

    with ci_job(Path("artifacts/ci"), "resnet-edge") as report:
        report(comparison.outcomes, comparison.cost.sentence)

A failed run still writes a report. Old reports are deleted first.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bonsai.pipeline.compare.comparison import Outcome, header_of, metric_of, show_cells
from bonsai.stages.store.store import require_writable_folder
from bonsai.stages.store.whole_files import write_whole
from bonsai.stages.texts import fenced, markdown

if TYPE_CHECKING:
    from junitparser import TestSuite

JUNIT, SUMMARY = "junit.xml", "summary.md"
FAILURES = {"missed": "GateMissed", "undecided": "GateUndecided"}
"""Type of the failure in JUnit's XML, by the gate's verdict."""
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot contain, such as the colour codes in a compiler's message."""


class Report(Protocol):
    """Writes what was found."""

    def __call__(self, outcomes: Sequence[Outcome], note: str, recipe: str = "") -> None:
        """Write the outcomes of a run of the recipe of this name, with a sentence below them."""
        ...


@contextmanager
def ci_job(folder: Path | None, recipe: str, *, as_json: bool = False) -> Iterator[Report]:
    """Report a run to CI, also where it ends by an error, which is passed on.

    Args:
        folder: Receives ``junit.xml`` and ``summary.md``; None reports nothing.
        recipe: Name or path, as it was given.
        as_json: Whether standard output is JSON alone: annotations then go to standard error.

    Raises:
        ConfigError: Files cannot be written in the folder.
    """
    if folder is None:
        yield lambda outcomes, note, recipe="": None
        return
    require_writable_folder(folder, "--ci-dir")
    for name in (JUNIT, SUMMARY):
        (folder / name).unlink(missing_ok=True)
    title = Path(recipe).stem

    def report(outcomes: Sequence[Outcome], note: str, recipe: str = "") -> None:
        name = recipe or title
        text = markdown_summary(name, outcomes, note)
        write_whole(folder / JUNIT, junit_xml(name, outcomes))
        write_whole(folder / SUMMARY, text)
        if page := os.environ.get("GITHUB_STEP_SUMMARY"):
            try:
                with Path(page).open("a", encoding="utf-8") as stream:
                    stream.write(text)
            except OSError as error:  # of a container that GitHub's folder is not mounted in
                print(f"warning: the summary is not on the job's page: {error}", file=sys.stderr)
        if os.environ.get("GITHUB_ACTIONS") == "true":
            for line in annotations(name, outcomes):
                print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

    try:
        yield report
    except Exception as error:  # written down and passed on: the job's reader sees the report alone
        message = str(error) or type(error).__name__
        report([Outcome(profile="", exit_code=getattr(error, "exit_code", 1), error=message)], "")
        raise


def junit_xml(title: str, outcomes: Sequence[Outcome]) -> str:
    """Return a suite per profile with a case per gate; what failed before its gates has one case, an error.

    A gate that is undecided, and may be, is a skipped case.
    """
    from junitparser import JUnitXml

    xml = JUnitXml(f"bonsai {title}")
    for outcome in outcomes:
        xml.add_testsuite(_suite(title, outcome))
    xml.update_statistics()
    return str(xml.tostring().decode())


def _suite(title: str, outcome: Outcome) -> "TestSuite":
    from junitparser import Error, Failure, Skipped, TestCase, TestSuite

    name = _name(title, outcome)
    suite = TestSuite(name)
    for key, value in _properties(outcome).items():
        suite.add_property(key, _xml(value))
    for gate in outcome.gates:
        sentence = _xml(gate.sentence)
        case = TestCase(gate.name, classname=f"bonsai.{name}")
        if gate in outcome.failing:
            case.result = [Failure(sentence, FAILURES[gate.verdict])]
            case.result[0].text = sentence
        elif not gate.passed:
            case.result = [Skipped(sentence)]
        case.system_out = sentence
        suite.add_testcase(case)
    if outcome.error:
        case = TestCase("run", classname=f"bonsai.{name}")
        case.result = [Error(_xml(outcome.error.splitlines()[0]), f"exit code {outcome.exit_code}")]
        case.result[0].text = _xml(outcome.error)
        suite.add_testcase(case)
    return suite


def markdown_summary(title: str, outcomes: Sequence[Outcome], note: str) -> str:
    """Return the table of the profiles, every gate, and every error in full."""
    lines = [f"## Bonsai: {title}", ""]
    named = [outcome for outcome in outcomes if outcome.profile]
    if named:
        header = header_of(metric_of(outcomes))
        lines += [_row(header), _row(["---"] * len(header)), *(_row(show_cells(outcome)) for outcome in named), ""]
    for outcome in outcomes:
        if outcome.error:
            lines += [f"**{_name(title, outcome)} failed, code {outcome.exit_code}**", "", fenced(outcome.error), ""]
        else:
            lines += [
                f"**{_name(title, outcome)}**",
                "",
                *(f"- {markdown(gate.sentence)}" for gate in outcome.gates),
                *([f"- {outcome.reference}"] if outcome.reference else []),
                *(f"- **warning: {markdown(text)}**" for text in outcome.warnings),
                "",
            ]
    return "\n".join([*lines, *([note, ""] if note else [])]) + "\n"


def annotations(title: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Return a GitHub workflow command per gate that is not met, per warning, and per error; a warning where a gate may be undecided."""
    found = []
    for outcome in outcomes:
        name = _name(title, outcome)
        for gate in outcome.unmet:
            found.append(_command(f"{name}: gate {gate.name} {gate.verdict}", gate.sentence, level="error" if gate in outcome.failing else "warning"))
        found += [_command(f"{name}: no plain verdict", text, level="warning") for text in outcome.warnings]
        if outcome.error:
            found.append(_command(f"{name}: failed, code {outcome.exit_code}", outcome.error))
    return found


def _command(title: str, message: str, *, level: str = "error") -> str:
    """Return `::error::` or another level, escaped as the runner undoes it (actions/toolkit, `command.ts`)."""
    data = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    value = title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={value}::{data}"


def _name(title: str, outcome: Outcome) -> str:
    return outcome.package or (f"{title}--{outcome.profile}" if outcome.profile else title)


def _properties(outcome: Outcome) -> dict[str, str]:
    row = outcome.shipped
    found = {"exit_code": str(outcome.exit_code)} | {f"warning_{number}": text for number, text in enumerate(outcome.warnings, 1)}
    if row is not None and row.latency is not None:
        found |= {"latency_source": row.latency.told, "precision": row.precision, "p50_ms": f"{row.latency.p50:.6g}"}
        found |= {"p99_ms": f"{row.latency.p99:.6g}"} if row.latency.p99 is not None else {}
        beside = {"size_mb": row.size_bytes / 1e6} | (row.footprint.figures if row.footprint is not None else {})
        found |= {name: f"{figure:.6g}" for name, figure in beside.items()}
        found |= {row.judged.metric: f"{row.judged.value:.6g}"}
        found |= {"reference": outcome.reference} if outcome.reference else {}
        found |= {"device": outcome.device, "runtime": outcome.runtime, "engine_sha256": outcome.engine_sha256}
    return found


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _xml(text: str) -> str:
    return NOT_XML.sub("?", text)
