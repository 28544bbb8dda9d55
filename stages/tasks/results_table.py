"""Tables and pictures that a task gives for the report."""

from typing import Annotated

from pydantic import Field, model_validator

from bonsai.profiles.located_yaml import Record


class ResultsTable(Record):
    """A table of results, such as one line for each class. Its first column heads its rows.

    Attributes:
        caption: What the table shows, in words.
        headers: One for each column.
        rows: Cells as people read them.
    """

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @model_validator(mode="after")
    def _is_whole(self) -> "ResultsTable":
        if any(len(row) != len(self.headers) for row in self.rows):
            raise ValueError("every row of a table must have a cell for each header")
        return self


class Picture(Record):
    """A small picture of a test image and its results.

    Attributes:
        title: What it shows, in words.
        png: A PNG file in base64.
        width: Pixels.
        height: Pixels.
    """

    title: str
    png: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+=*$", max_length=200_000)]
    width: Annotated[int, Field(ge=1, le=2_000)]
    height: Annotated[int, Field(ge=1, le=2_000)]


def percent(share: float) -> str:
    """Return a ratio of 0-1 as per cent; a hyphen for NaN."""
    return "-" if share != share else f"{100 * share:.1f} %"
