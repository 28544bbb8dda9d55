"""A report in a browser: on a phone and on a desk, in light and in dark, alone and over several packages."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import find_chromium
from tiny_report import a_manifest

from bonsai.stages.reporting.writing import write_reports

pytestmark = pytest.mark.browser

PATIENCE_MS = 120_000
"""A machine that is busy with other tests starts a browser slowly."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
RULES = """() => {
  const name = element => (element.getAttribute('aria-labelledby') || '').split(' ').map(id => document.getElementById(id)?.textContent || '').join('').trim()
    || element.getAttribute('aria-label') || element.getAttribute('alt') || '';
  const select = query => [...document.querySelectorAll(query)];
  const levels = select('h1, h2, h3, h4, h5, h6').map(heading => Number(heading.tagName[1]));
  return {
    language: document.documentElement.lang,
    h1: levels.filter(level => level === 1).length,
    skipped: levels.filter((level, place) => level > (levels[place - 1] ?? 0) + 1).length,
    landmarks: select('header, main, footer').map(element => element.tagName.toLowerCase()),
    pictures: select('img, svg').length,
    unnamedPictures: select('img, svg').filter(picture => picture.getAttribute('role') !== 'img' || !name(picture)).length,
    headersWithoutScope: select('th:not([scope])').length,
    tablesWithoutCaption: select('table').filter(table => !table.caption?.textContent.trim()).length,
    unreachableScrollers: select('.scroll').filter(region => region.tabIndex !== 0 || region.getAttribute('role') !== 'region' || !name(region)).length,
    doubleIds: select('[id]').length - new Set(select('[id]').map(element => element.id)).size,
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    cutTables: select('.scroll:has(table)').filter(region => region.scrollWidth > region.clientWidth + 1).map(region => name(region)),
  };
}"""
CONTRAST = """() => {
  const light = colour => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => { const c = part / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = element => { for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor; if (!/, 0\\)$/.test(colour)) return colour; } return 'rgb(255, 255, 255)'; };
  const texts = [...document.querySelectorAll('h1, h2, h3, p, dt, dd, th, td, caption, summary, a, pre')].filter(element => element.textContent.trim());
  return Math.min(...texts.map(element => {
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reports")
    points = ({"batch": 8, "budget": {"latency": 0.3}}, {"batch": 16, "threads": 2, "budget": {"latency_ms": 7, "percentile": 95}})
    several = (a_manifest(points=points), a_manifest("rtx-4090", estimated=True), a_manifest("t4", shipped_ms=1.5, estimated=True))
    write_reports(root / "one", several[:1], title="tiny--local-cpu")
    write_reports(root / "several", several, title="tiny", failures={"jetson-orin-nano-with-a-long-name": "the budget is below the floor\n  do: raise it"})
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = find_chromium()
    assert found is not None, "no Chromium in this machine, and --require-chromium is given"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=list(FLAGS), timeout=PATIENCE_MS)
        yield chromium
        chromium.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("which", ["one", "several"])
def test_a_report_is_whole_quiet_and_readable(reports: Path, browser: Any, tmp_path: Path, which: str, width: int, scheme: str) -> None:
    address = (reports / which / "report.html").as_uri()
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE_MS)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    found = page.evaluate(RULES)
    pictures = found.pop("pictures")
    assert found == {
        "language": "en",
        "h1": 1,
        "skipped": 0,
        "landmarks": ["header", "main", "footer"],
        "unnamedPictures": 0,
        "headersWithoutScope": 0,
        "tablesWithoutCaption": 0,
        "unreachableScrollers": 0,
        "doubleIds": 0,
        "overflow": 0,
        "cutTables": [],
    }
    assert pictures == {"one": 5, "several": 1 + 3 * 5}[which]
    assert page.evaluate(CONTRAST) >= 4.5
    dark = sum(map(int, page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"))) < 3 * 128
    assert dark == (scheme == "dark")
    assert said == []
    assert [url for url in asked if url != address and not url.startswith("data:")] == []
    assert (tmp_path / "page.png").stat().st_size > 10_000
    page.close()


def test_the_skip_link_and_every_wide_table_are_reached_by_keyboard(reports: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 700, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    page.goto((reports / "one" / "report.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.scrollWidth > document.activeElement.clientWidth + 1"):
            break
    assert page.evaluate("document.activeElement.getAttribute('role')") == "region"
    before = page.evaluate("document.activeElement.scrollLeft")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("before => document.activeElement.scrollLeft > before", arg=before)
    page.close()
