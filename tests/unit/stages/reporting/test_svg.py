import re
import xml.etree.ElementTree as ET

from tiny_report import DENSE, HISTORY, TRIGGER

from bonsai.stages.reporting.plots import draw_learning, draw_widths
from bonsai.stages.reporting.svg import PALETTE, inline
from bonsai.stages.tasks.classification.judging import CLASSIFICATION


def ids(svg: str) -> list[str]:
    return re.findall(r'\bid="([^"]+)"', svg)


def test_ids_are_unlike_those_of_another_figure_and_every_reference_is_met() -> None:
    drawing = draw_learning(TRIGGER, HISTORY, (2.0,), CLASSIFICATION.metric)
    first, second = (inline(drawing, name, "t", "d") for name in ("a", "b"))
    assert len(set(ids(first) + ids(second))) == len(ids(first) + ids(second))
    assert all(one.startswith("a-") for one in ids(first))
    references = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', first))
    assert {one or other for one, other in references} <= set(ids(first))
    assert len(references) > 2


def test_the_figure_is_named_and_described_and_what_it_is_told_is_escaped() -> None:
    root = ET.fromstring(inline(draw_widths(DENSE, DENSE, DENSE), "w", "a < b", "5 & 6"))
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", "w-title w-description")
    assert [(child.get("id"), child.text) for child in root][:2] == [("w-title", "a < b"), ("w-description", "5 & 6")]


def test_colours_are_the_pages_and_the_background_is_its_own() -> None:
    svg = inline(draw_widths(DENSE, DENSE, DENSE), "w", "t", "d")
    assert f"fill: var(--shipped, {PALETTE['shipped']})" in svg
    assert "stroke: currentColor" in svg
    for absent in ("#000000", "#ffffff", "DejaVu", "<style", "metadata", "http://purl.org"):
        assert absent not in svg
