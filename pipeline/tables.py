"""Prints the tables at the end of a command."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bonsai.pipeline.compare.comparison import Comparison, metric_of, show_cells
from bonsai.pipeline.compare.comparison import header_of as header_compared
from bonsai.stages.delivery.contents import REPORTS
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.explanation.records import Explanation
from bonsai.stages.reporting.explanation import table_of, texts_of
from bonsai.stages.reporting.model_card import gate_lines, header_of, row_cells

if TYPE_CHECKING:  # their rooms import torch, which the table of a finished run does without
    from bonsai.pipeline.run.characterize import Characterized
    from bonsai.pipeline.run.plan import Plan
    from bonsai.pipeline.starting.scaffold import Written

WIDEST = 1000
"""Most columns that a table is printed with."""


def _console_for(table: Table) -> Console:
    """Return a console on which no row of a table is cut, however narrow the terminal is."""
    return Console(highlight=False, width=max(Console().width, Console(width=WIDEST).measure(table).maximum))


def show_comparison(comparison: Comparison, folder: Path, *, as_json: bool) -> None:
    """Print a line per profile, the messages of those that failed, what was saved, and where the files are."""
    if as_json:
        print(comparison.model_dump_json(indent=2))
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=comparison.recipe, title_justify="left")
    headers = header_compared(metric_of(comparison.outcomes))
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if 1 < index < len(headers) - 2 else "left", no_wrap=True)
    for outcome in comparison.outcomes:
        table.add_row(*show_cells(outcome))
    console = _console_for(table)
    console.print(table)
    for outcome in comparison.outcomes:
        for sentence in (*(gate.sentence for gate in outcome.unmet), *(f"warning: {warning}" for warning in outcome.warnings)):
            console.print(f"{outcome.profile}: {sentence}", markup=False, soft_wrap=True)
        if outcome.error:
            console.print(f"{outcome.profile}: {outcome.error}", markup=False, soft_wrap=True)
    console.print(f"{comparison.cost.sentence}\n{folder}", markup=False, soft_wrap=True)


def show_packages(packages: Sequence[Package], folder: Path, *, as_json: bool) -> None:
    """Print the result table, gates and place of every package."""
    if as_json:
        print(json.dumps([package_facts(package, folder) for package in packages], indent=2))
        return
    for package in packages:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=package.name, title_justify="left")
        for index, header in enumerate(header_of(package.metric)):
            table.add_column(header, justify="right" if index else "left", no_wrap=True)
        for row in package.rows:
            table.add_row(*row_cells(row, package.metric))
        console = _console_for(table)
        console.print(table)
        console.print(gate_lines(package.gates), markup=False, soft_wrap=True)
        for warning in package.warnings:
            console.print(f"warning: {warning}", markup=False, soft_wrap=True)
        console.print("\n".join(package.notes), markup=False, soft_wrap=True)
        if package.against is not None:
            console.print(package.against.sentence(package.metric), markup=False, soft_wrap=True)
        console.print(f"{folder / package.name}", markup=False, soft_wrap=True)
        console.print(f"report: {folder / package.name / REPORTS[0]}\n", markup=False, soft_wrap=True)


def package_facts(package: Package, folder: Path) -> dict[str, object]:
    """Return a package as `--json` prints it and a Prefect run returns it."""
    return {
        "name": package.name,
        "folder": str(folder / package.name),
        "report": str(folder / package.name / REPORTS[0]),
        "engine_sha256": package.engine_sha256,
        "passed": all(gate.passed for gate in package.gates),
        "gates": [gate.model_dump(mode="json") for gate in package.gates],
        "warnings": package.warnings,
        "notes": package.notes,
        "against": package.against.model_dump(mode="json") if package.against else None,
        "rows": [row.model_dump(mode="json") for row in package.rows],
    }


def show_tables(tables: "Sequence[Characterized]", *, as_json: bool) -> None:
    """Print what was measured, how well it predicts, and where the profile's steps do not fit the device."""
    if as_json:
        print(json.dumps([table.model_dump(mode="json") for table in tables], indent=2))
        return
    console = Console(highlight=False, width=max(Console().width, 90))
    for table in tables:
        console.print(f"{table.precision} on {table.device}: {table.entries} operators, spread p50/p10 {table.spread:.2f}", markup=False)
        console.print(
            f"predicted against measured, on networks that the model was not fitted to: mean error {table.error[0]:.1%}, largest {table.error[1]:.1%}"
        )
        if table.steps:
            steps = Table("operator, side", "step", "variance explained", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for kind, (step, share) in table.steps.items():
                steps.add_row(kind, str(step), f"{share:.0%}")
            console.print(steps)
        for kind in table.wrong_steps:
            problem = f"warning: {kind} has a step of {table.steps[kind][0]}, the profile a channel_multiple.{table.precision} of {table.step}"
            console.print(f"{problem}: set it to a multiple of {table.steps[kind][0]}", markup=False)
    console.print(tables[0].file, markup=False, soft_wrap=True)


def show_plan(plan: "Plan", *, as_json: bool) -> None:
    """Print what a run would do."""
    if as_json:
        print(plan.model_dump_json(indent=2))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{plan.recipe}: {plan.epochs} epochs, {plan.trunk_segments} trunk segments, images {plan.images}", markup=False)
    for target in plan.targets:
        table = Table("group", "width", "may keep", title=f"{target.profile}: {target.device}; {target.budget}; gates {target.gates}", title_justify="left")
        for group in target.groups:
            table.add_row(group.name, f"{group.width}" + (f" x {group.positions}" if group.positions > 1 else ""), " ".join(map(str, group.options)))
        console.print(table)
        for sentence in target.prospect.sentences:
            console.print(sentence, markup=False)
        finished = ", ".join(f"{stage} {count}" for stage, count in target.cached.items()) or "nothing"
        console.print(f"before training: {target.preflight}", markup=False)
        console.print(f"finished: {finished}\nwould run: {target.next_stage + ' and what follows it' if target.next_stage else 'nothing'}\n", markup=False)


def show_explanation(explanation: Explanation, *, as_json: bool) -> None:
    """Print the layers with their times and errors, the layers that stand out, and what could not be looked at."""
    if as_json:
        print(explanation.model_dump_json(indent=2))
        return
    console = Console(highlight=False, width=max(Console().width, 155))  # a row needs so many columns
    told = table_of(explanation)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=f"{explanation.package}: {told.caption}", title_justify="left")
    for header, numeric in zip(told.headers, told.numeric, strict=True):
        table.add_column(header, justify="right" if numeric else "left", no_wrap=not numeric)
    for place, row in enumerate(told.rows):
        table.add_row(*map(escape, row), style="bold" if place in told.strong else None)
    console.print(table)
    for sentence in texts_of(explanation):
        console.print(sentence, markup=False, soft_wrap=True)


def show_written(written: "Written") -> None:
    """Print what the user should know of a new recipe, its files, and what comes next."""
    for line in (*written.lines, *(f"wrote {file}" for file in written.files), f"next: bonsai run {written.files[0]}"):
        print(line)
