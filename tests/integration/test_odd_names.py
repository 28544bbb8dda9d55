"""Class names with line breaks, commas, HTML and direction marks, from an own loader to the package and what is made of it."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from chromium import find_chromium
from markdown_it import MarkdownIt

from bonsai.profiles.errors import visible

NAMES = ("two\nlines", "a, b", "<img src=x onerror=document.title='bad'>", "\u202egnp.exe", "**strong** [x](http://x.example)", "| 5", "6", "7", "8", "9")
LOADER = f"""
from bonsai.stages.data.digits import load_digits
def load(*, size):
    digits = load_digits(size=size)
    return digits._replace(images=digits.images / 255, value_range=(0, 1), classes={NAMES!r}, licence="<script>document.title='bad'</script> mine")
"""
pytestmark = pytest.mark.slow
TINY = Path(__file__).parent / "configs" / "tiny.yaml"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "odd_loader.py").write_text(LOADER, encoding="utf-8")
    (folder / "odd.yaml").write_text(TINY.read_text().replace("name: digits,", 'name: "odd_loader:load",'))
    command = [sys.executable, "-m", "bonsai", "run", str(folder / "odd.yaml"), "--store", str(folder / "store"), "--layout", "ort"]
    command += ["--set", "profile.budget.latency=1", "--set", "profile.gates.max_drop=1", "--set", "quantize.qat=never", "--allow-undecided"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 3}, done.stderr[-3000:]
    return folder / "store" / "packages" / "tiny--local-cpu"


def test_the_files_hold_the_names_as_they_are(package: Path) -> None:
    assert tuple(json.loads((package / "manifest.json").read_text())["classes"]) == NAMES
    metadata = {entry.key: entry.value for entry in onnx.load(package / "model.onnx", load_external_data=False).metadata_props}
    assert tuple(json.loads(metadata["bonsai.classes"])) == NAMES
    (labels,) = package.parent.glob("ort/*/labels.txt")
    assert labels.read_text(encoding="utf-8").splitlines() == [name.replace("\n", "\\n") for name in NAMES]


def test_the_card_shows_the_names_as_text(package: Path) -> None:
    card = (package / "MODEL_CARD.md").read_text(encoding="utf-8")
    found = [child for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(card) for child in [token, *(token.children or [])]]
    html = {token.content for token in found if token.type in {"html_inline", "html_block"}}
    assert html == {"<br>"}
    assert not [token for token in found if token.type == "link_open" and "x.example" in str(token.attrs)]
    shown = "".join(token.content if token.content != "<br>" else "\n" for token in found if token.type in {"text", "text_special", "html_inline"})
    for name in NAMES:
        assert visible(name) in shown
    assert "<script>document.title='bad'</script> mine" in shown


@pytest.mark.browser
def test_the_report_runs_nothing_that_a_name_holds(package: Path) -> None:
    file = package / "report.html"
    done = subprocess.run(
        [str(find_chromium()), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "<title>tiny--local-cpu" in done.stdout
    assert "bad</title>" not in done.stdout
    assert "<img" not in done.stdout
    assert "<script" not in done.stdout
    assert "\u202e" not in done.stdout
