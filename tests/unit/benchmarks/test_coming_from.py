"""The page on coming from other tools shows what was run, with the figures that were measured."""

from pathlib import Path

import coming_from
import pytest
import torch
from other_tools import TOOLS
from pages import ROOT, blocks_of

PAGE = ROOT / "docs" / "coming-from.md"
SHOWN = {line.strip() for block in blocks_of(PAGE) for line in block.text.splitlines()}
MEASURED = [name for name in TOOLS if name not in ("dense", "torchao-strong")]


@pytest.mark.parametrize("name", MEASURED)
def test_the_page_shows_the_snippet_that_was_measured(name: str) -> None:
    assert [line for line in coming_from.shown_lines(TOOLS[name]) if line not in SHOWN] == []


def test_the_page_has_the_table_of_the_results() -> None:
    assert "\n".join(coming_from.table(coming_from.read())) in PAGE.read_text()


def test_every_tool_has_a_row() -> None:
    assert [row.tool for row in coming_from.read()] == list(TOOLS)


def test_a_tool_that_fails_is_told_with_its_reason() -> None:
    row = coming_from.Row(tool="fasterai", version="1", source="", failed="ValueError: no")
    assert coming_from.table([row])[-1].startswith("| fasterai 1 | Remove half of every layer's filters | 3 | failed: ValueError: no |")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch's exporter
def test_an_exported_network_becomes_an_engine(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU())
    _, kernels = coming_from.engine_of(coming_from.exported(network, tmp_path / "network.onnx"))
    assert (kernels["float_convolutions"], kernels["int8_convolutions"]) == (1, 0)


def test_a_tool_that_is_not_installed_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'nncf'")

    monkeypatch.setattr(coming_from, "measure", measure)
    monkeypatch.setattr(coming_from, "Data", lambda _: None)
    monkeypatch.setattr("sys.argv", ["coming_from.py", "nncf-prune", "--here", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit, match="nncf-prune was not measured: No module named 'nncf'; install nncf"):
        coming_from.main()
