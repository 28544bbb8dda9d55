"""Matplotlib's figures as SVG for a page: in the page's colours and font, with ids of their own, named for those who do not see them."""

import io
import os
import re
import tempfile
import xml.etree.ElementTree as ET  # reads what matplotlib has just written
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = {"dense": "#52607a", "pruned": "#b4520a", "shipped": "#0b7a5d", "limit": "#b3123f", "quiet": "#8b93a1"}
"""Colours on white by role. On a page they are ``var(--dense, #52607a)`` and so on, and black is the colour of the text,
and white nothing."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bonsai",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
WIDTH = 5.0
"""Inches: a figure that is as wide as a phone's screen then has letters that can be read."""
LEFT_OUT = "<p>This figure is left out, for matplotlib is not installed (the extra <code>train</code> has it). A table has the same numbers.</p>"


def draw(paint: Callable[["Figure"], None], height: float) -> str:
    """Return a figure as an SVG file, the same for the same input; an empty text where matplotlib is not installed.

    Args:
        paint: Fills an empty figure.
        height: Inches.
    """
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("MPLCONFIGDIR", cache)  # matplotlib would write to the user's home
        try:
            import matplotlib
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            if error.name != "matplotlib":
                raise
            return ""
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(WIDTH, height), layout="constrained")
            paint(figure)
            file = io.StringIO()
            figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def inline(file: str, name: str, title: str, description: str) -> str:
    """Return an SVG file of `draw` as an element for a page, or a line that says why there is none.

    Args:
        file: The file's text.
        name: Unlike that of any other figure of the page; put before every id.
        title: Title for screen readers.
        description: Description in words.
    """
    if not file:
        return LEFT_OUT
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", XLINK)
    root = ET.fromstring(file)  # noqa: S314  # matplotlib's
    _drop(root, "metadata", "style")
    referenced = set(re.findall(r"#([\w.-]+)", " ".join(value for element in root.iter() for value in element.attrib.values() if "#" in value)))
    for element in root.iter():
        _adapt(element, name, referenced)
    for size in ("width", "height"):
        del root.attrib[size]
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-description", "fill": "currentColor"}
    shown = ET.tostring(root, encoding="unicode")
    names = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-description">{escape(description)}</desc>'
    return re.sub(r"(<svg[^>]*>)", lambda opening: opening[1] + names, shown, count=1)


def _drop(root: ET.Element, *tags: str) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{{{SVG}}}{tag}" for tag in tags}:
                parent.remove(child)


def _adapt(element: ET.Element, name: str, referenced: set[str]) -> None:
    """Rename an element's id and references, and let the page choose its colours and font."""
    if (own := element.attrib.pop("id", None)) in referenced:
        element.set("id", f"{name}-{own}")
    for key, value in element.attrib.items():
        if key == "style":
            kept = [part for part in value.split("; ") if not part.startswith("font-family")]
            value = "; ".join(kept).replace("#000000", "currentColor").replace("#ffffff", "none")
            for role, colour in PALETTE.items():
                value = value.replace(colour, f"var(--{role}, {colour})")
        element.set(key, re.sub(r"^#|(?<=url\()#", f"#{name}-", value))
