"""Writes a report: ``report.html``, which needs nothing but itself, and ``report.md``.

write_reports(Path("report"), [read_intact(folder) for folder in folders], title="resnet-edge on three devices")
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from bonsai.profiles.errors import visible
from bonsai.stages.delivery.contents import REPORTS, PackageManifest
from bonsai.stages.reporting.comparison import write_report
from bonsai.stages.reporting.content import Report
from bonsai.stages.store.whole_files import write_whole
from bonsai.stages.texts import markdown


def write_reports(folder: Path, packages: Sequence[PackageManifest], *, title: str, failures: Mapping[str, str] | None = None, note: str = "") -> None:
    """Write ``report.html`` and ``report.md`` over one or several packages, each by one rename.

    Args:
        folder: Folder for the files; it is made if it is missing.
        packages: Manifests of finished packages, in the order of the report.
        title: Its heading.
        failures: By profile without a package, its error.
        note: Text at the top, such as the cost of the run. If empty, a report of several packages says there what they share.
    """
    write_pages(folder, write_report(packages, title, failures or {}, note))


def write_pages(folder: Path, report: Report) -> None:
    """Write a report as ``report.html`` and ``report.md``, each by one rename; the folder is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in REPORTS:
        text = _environment().get_template(f"{name}.j2").render(report=report)
        write_whole(folder / name, text)


@cache
def _environment() -> Environment:
    """Return the templates; what is put into the page is escaped there, and the Markdown escapes what it is told to."""
    found = Environment(
        loader=PackageLoader("bonsai.stages.reporting"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    found.filters["md"] = lambda text: markdown(str(text))
    return found
