"""Shows a run on its page in Prefect's UI: the progress of long steps, and at the end the packages.

No error here may stop or delay a run: if the server does not answer, the result is still in the store.
"""

import base64
import contextvars
import logging
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from bonsai.pipeline.compare.comparison import Comparison, metric_of, show_cells
from bonsai.pipeline.compare.comparison import header_of as header_compared
from bonsai.pipeline.service.package_server import URL_VARIABLE
from bonsai.stages.delivery.contents import CARD, FIGURE, REPORTS
from bonsai.stages.delivery.contents import FOLDER as PACKAGE
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.reporting.model_card import header_of, row_cells
from bonsai.stages.texts import fenced, markdown
from bonsai.stages.training.progress import Progress, logger, say

CLOSE_SECONDS = 5


class Bar(NamedTuple):
    """A progress artifact, and how far it was when it was last sent."""

    id: UUID
    done: int


class ProgressBars(logging.Handler):
    """Turns the progress in log records into progress artifacts, in a thread of its own: training never waits for the server."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: SimpleQueue[Progress | None] = SimpleQueue()
        self._bars: dict[str, Bar] = {}
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._send_all,), name="progress", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a record's progress, if it tells any."""
        progress = getattr(record, "progress", None)
        if isinstance(progress, Progress):
            self._waiting.put(progress)

    def close(self) -> None:
        """Send what waits, but do not wait long for a server that is away."""
        self._waiting.put(None)
        self._thread.join(CLOSE_SECONDS)
        super().close()

    def _send_all(self) -> None:
        while (progress := self._waiting.get()) is not None:
            try:
                self._send(progress)
            except httpx.HTTPError:  # the server is away; what comes next says it again
                continue

    def _send(self, progress: Progress) -> None:
        bar, percent = self._bars.get(progress.kind), 100 * progress.fraction
        done = f"{progress.unit or 'part'} {progress.done} of {progress.last}"
        figures = [f"{name} {value:.4g}" for name, value in progress.figures.items()]
        description = f"{percent:.0f} %: {', '.join([*figures, done])}"  # a card shows some forty characters
        if bar is None or progress.done <= bar.done:  # the same kind of step again, of another branch or precision
            artifact = create_progress_artifact(percent, key=f"progress-{slug(progress.kind)}", description=description)
            assert isinstance(artifact, UUID)  # Prefect's signature also covers asynchronous callers
            self._bars[progress.kind] = Bar(artifact, progress.done)
        else:
            update_progress_artifact(bar.id, percent, description=description)
            self._bars[progress.kind] = bar._replace(done=progress.done)


@contextmanager
def show_progress() -> Iterator[None]:
    """Show Bonsai's progress as artifacts of the flow run that is under way, while the block runs."""
    bars = ProgressBars()
    logger.addHandler(bars)
    try:
        yield
    finally:
        logger.removeHandler(bars)
        bars.close()


def show_package(package: Package, places: Sequence[Path]) -> None:
    """Put a package on the run's page: the model card with its figure, the result table, and links where `bonsai serve` serves the files.

    Args:
        package: The package that the run made.
        places: Folders where it lies for people, the package first.
    """
    key, folder = slug(package.name), package.folder / PACKAGE
    table = [dict(zip(header_of(package.metric), row_cells(row, package.metric), strict=True)) for row in package.rows]
    lying = "\n".join(f"    {place}" for place in places)
    card = with_figure((folder / CARD).read_text(encoding="utf-8"), (folder / FIGURE).read_bytes())
    try:
        create_table_artifact(table, key=f"{key}-rows", description=f"Results of {package.name}")
        create_markdown_artifact(f"{card}\n## Where it lies\n\n{lying}\n", key=key, description="Model card, and where the package lies")
        if served := os.environ.get(URL_VARIABLE):
            address = f"{served}/{package.folder.name}/{PACKAGE}/"
            create_link_artifact(address + REPORTS[0], link_text=f"Report of {package.name}", key=f"{key}-report", description=f"Report of {package.name}")
            create_link_artifact(address, link_text=f"Files of {package.name}", key=f"{key}-files", description=f"Files of {package.name}")
            create_image_artifact(address + FIGURE, key=f"{key}-training", description=f"How {package.name} was trained")
    except httpx.HTTPError as error:
        say(f"{package.name} is finished but not on the run's page, for the Prefect server does not answer: {error}")


def show_comparison(comparison: Comparison, folder: Path) -> None:
    """Put a comparison on the run's page: a table with a line per profile, what went wrong, and the model card of every package.

    Args:
        comparison: Result of the run.
        folder: Folder of its files.
    """
    key, name = slug(comparison.recipe), comparison.recipe
    header = header_compared(metric_of(comparison.outcomes))
    table = [_verdict_first(dict(zip(header, show_cells(outcome), strict=True))) for outcome in comparison.outcomes]
    wrong = [f"## {outcome.profile} failed\n\n{fenced(outcome.error)}" for outcome in comparison.outcomes if outcome.error]
    wrong += [
        f"## {outcome.profile}: gate {gate.name} {gate.verdict}\n\n{markdown(gate.sentence)}" for outcome in comparison.outcomes for gate in outcome.unmet
    ]
    wrong += [f"## {outcome.profile}: warning\n\n{markdown(text)}" for outcome in comparison.outcomes for text in outcome.warnings]
    text = "\n\n".join([f"# {comparison.title}", comparison.cost.sentence, *wrong, f"## Where it lies\n\n    {folder}", ""])
    try:
        create_table_artifact(table, key=f"{key}-compared", description=f"{name}, a line per profile")
        create_markdown_artifact(text, key=f"{key}-comparison", description=f"{name}: what sharing saved, and what went wrong")
        for place in (Path(outcome.folder) for outcome in comparison.outcomes if outcome.package):
            card = with_figure((place / CARD).read_text(encoding="utf-8"), (place / FIGURE).read_bytes())
            create_markdown_artifact(f"{card}\n## Where it lies\n\n    {place}\n", key=slug(place.name), description=f"Model card of {place.name}")
    except httpx.HTTPError as error:
        say(f"the comparison is finished but not on the run's page, for the Prefect server does not answer: {error}")


def _verdict_first(line: dict[str, str]) -> dict[str, str]:
    """Move the last column behind the first: the page shows the left ones alone, unless one scrolls."""
    first, *_, verdict = line
    return {first: line[first], verdict: line[verdict]} | line


def with_figure(card: str, figure: bytes) -> str:
    """Return a model card that carries its figure: a page of the UI has no folder to find it in."""
    picture = re.compile(rf"^(!\[[^\]\n]*\])\({re.escape(FIGURE)}\)$", re.MULTILINE)
    return picture.sub(rf"\1(data:image/svg+xml;base64,{base64.b64encode(figure).decode()})", card)


def slug(text: str) -> str:
    """Return a text as Prefect wants the key of an artifact: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
