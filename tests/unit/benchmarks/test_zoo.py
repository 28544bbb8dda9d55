"""The zoo: which networks it holds, what becomes of a process that does not end well, and its page."""

import json
import sys
from pathlib import Path

import pytest
import zoo
from zoo_page import PAGE, outcome, page_of

DIES = """
import json, os, signal, sys, time
steps = {"dry run": {"outcome": "ok", "reason": "", "seconds": 1}, "cut": {"outcome": "running", "reason": "", "seconds": 0}}
open(sys.argv[2], "w").write(json.dumps({"module": "m", "model": "n", "steps": steps, "differences": {}, "seconds": 1}))
"""


def row_of(code: str, tmp_path: Path, *, seconds: int = 60) -> zoo.Row:
    script = tmp_path / "one.py"
    script.write_text(code)
    return zoo.run_one([sys.executable, str(script)], "m/n", seconds, 1)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the process was killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "no end within 60 s of CPU time"),
        ("sys.exit('no memory')", "the process ended with code 1: no memory"),
    ],
)
def test_a_process_that_dies_leaves_a_row_that_names_the_step(end: str, reason: str, tmp_path: Path) -> None:
    row = row_of(f"{DIES}\n{end}", tmp_path)
    assert outcome(row) == f"failed at cut: {reason}"


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "WAIT", 1)
    assert outcome(row_of(f"{DIES}\ntime.sleep(60)", tmp_path, seconds=2)) == "failed at cut: no end within 2 s"


def test_a_process_that_dies_at_once_leaves_a_row(tmp_path: Path) -> None:
    assert outcome(row_of("raise SystemExit('no such network')", tmp_path)) == "failed at dry run: the process ended with code 1: no such network"


def test_a_second_run_takes_what_has_no_row_and_on_demand_what_is_incomplete() -> None:
    steps = {step: {"outcome": "ok", "reason": "", "seconds": 1} for step in ("dry run", "cut", "training step", "INT8", "export", "engine")}
    rows = {"vgg/a": {"steps": steps}, "vgg/b": {"steps": {"dry run": {"outcome": "refused", "reason": "why", "seconds": 1}}}}
    keys = ["vgg/a", "vgg/b", "dla/c"]

    def chosen(modules: list[str] | None = None, only: list[str] | None = None, again: str | None = None) -> list[str]:
        return [key for key in keys if zoo.selected(key, rows, modules, only, again)]

    assert chosen() == ["dla/c"]
    assert chosen(again="incomplete") == ["vgg/b", "dla/c"]
    assert chosen(again="all", modules=["vgg"]) == ["vgg/a", "vgg/b"]
    assert chosen(again="all", only=["a", "dla/c"]) == ["vgg/a", "dla/c"]


def test_the_committed_page_is_what_the_results_give() -> None:
    results = json.loads(zoo.RESULTS.read_text())
    assert PAGE.read_text(encoding="utf-8") == page_of(zoo.read_rows(), results), "docs/zoo.md is out of date: run `python benchmarks/zoo.py --write`"


def test_every_module_that_was_asked_for_has_its_first_four_networks() -> None:
    keys = zoo.all_keys()
    by_module: dict[str, list[str]] = {}
    for key in keys:
        by_module.setdefault(key.partition("/")[0], []).append(key.partition("/")[2])
    assert len(by_module) == 34
    assert by_module["resnet"] == ["ecaresnet101d", "ecaresnet101d_pruned", "ecaresnet200d", "ecaresnet269d"]
    assert by_module["repvgg"] == ["repvgg_a0", "repvgg_a1", "repvgg_a2", "repvgg_b0"]
    assert {module: len(models) for module, models in by_module.items() if len(models) < 4} == {
        "inception_v3": 1,
        "xception": 1,
        "squeezenet": 2,
        "googlenet": 1,
    }
