"""The content of a report, independent of HTML and Markdown."""

import re
from typing import Literal

from bonsai.profiles.located_yaml import Record

Outcome = Literal["met", "estimated", "undecided", "missed"]
"""In this order: all gates met; all met, but latency is an estimate; one undecided, or a warning makes the result meaningless; one missed."""

NUMBER = re.compile(r"[-+]?\d[\d.,e+-]*( to [\d.]+)?(x| %)?( \(est\.\)| unstable)?")
"""A cell that holds a number, an interval, or a ratio."""


class Fact(Record):
    """A figure of the verdict, with what it must be read with."""

    label: str
    value: str
    note: str


class Table(Record):
    """A table whose first column heads its rows.

    Attributes:
        strong: Rows that stand out.
        folded: Whether the page shows it on demand: the numbers of a figure.
    """

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[int, ...] = ()
    folded: bool = False

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers, which are set to the right."""
        return tuple(any(map(NUMBER.fullmatch, column)) and all(cell == "-" or NUMBER.fullmatch(cell) for cell in column) for column in self._columns)

    @property
    def _columns(self) -> list[list[str]]:
        return [[row[place] for row in self.rows] for place in range(len(self.headers))]


class Figure(Record):
    """A picture for the page; its numbers stand in a table of the same part.

    Attributes:
        svg: An ``<svg>`` element with the title and description in it; a line in its place where it could not be drawn.
        caption: Text below it, for a figure that the title of its part does not describe.
    """

    title: str
    svg: str
    caption: str = ""


class Listing(Record):
    """A long text that the page shows on demand."""

    title: str
    text: str


class Part(Record):
    """A headed piece of a chapter."""

    title: str
    texts: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    listings: tuple[Listing, ...] = ()


class Chapter(Record):
    """All about one package, the verdict first.

    Attributes:
        name: Name of the package.
        headline: The verdict in a sentence.
        warnings: Reasons why the verdict means little.
        basis: Facts about the engine, and how its figures were measured.
    """

    name: str
    outcome: Outcome
    headline: str
    warnings: tuple[str, ...]
    basis: str
    facts: tuple[Fact, ...]
    gates: Table
    parts: tuple[Part, ...]


class Report(Record):
    """A whole report.

    Attributes:
        notes: Text at the top.
        summary: How several packages compare, and what failed; empty for one package.
    """

    title: str
    notes: tuple[str, ...]
    summary: tuple[Part, ...]
    chapters: tuple[Chapter, ...]
