"""`bonsai explain`: ten faults drawn by a seed are named with layer and kind, and none in a clean package."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planted import CASES, Case, drawn, plant
from quantised_package import make_quantised_package

from bonsai.stages.explanation.explaining import explain

SEED, NUMBER = 20261129, 10
NOWHERE = Path("/nowhere")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_quantised_package(tmp_path_factory.mktemp("clean"))


def bonsai(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bonsai", "explain", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("number", range(NUMBER))
def test_each_of_ten_faults_drawn_by_a_seed_is_named_and_nothing_else(clean: Path, tmp_path: Path, number: int) -> None:
    package = shutil.copytree(clean, tmp_path / "package")
    planted = plant(package, drawn(SEED, NUMBER)[number], np.random.default_rng([SEED, number]))
    found = explain(package, NOWHERE)
    assert [(finding.layer, finding.kind, finding.place) for finding in found.findings] == [tuple(planted)]
    assert planted.layer in found.verdict
    assert found.findings[0].do


def test_the_ten_are_of_several_kinds_in_both_places_and_another_seed_draws_others() -> None:
    cases = drawn(SEED, NUMBER)
    assert len(set(cases)) == NUMBER
    assert {case.place for case in cases} == {"engine", "model.onnx"}
    assert len({case.kind for case in cases}) >= 5
    assert drawn(SEED + 1, NUMBER) != cases
    assert len(CASES) == 18


def test_the_command_prints_a_table_the_verdict_and_what_to_do_and_writes_a_page(clean: Path, tmp_path: Path) -> None:
    package = shutil.copytree(clean, tmp_path / "package")
    before = {file: file.read_bytes() for file in package.iterdir()}
    done = bonsai(str(package), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "No layer stands out." in done.stdout
    assert "rounding adds" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "report.html")
    page, text = ((tmp_path / "out" / name).read_text() for name in ("report.html", "report.md"))
    assert "<svg" in page
    assert "block.conv1" in page
    assert text.startswith("# Why is tiny--local-cpu slow, where was accuracy lost?")
    assert "| block.conv1 | Conv |" in text
    assert {file: file.read_bytes() for file in package.iterdir()} == before


def test_the_command_prints_json_with_the_fault(clean: Path, tmp_path: Path) -> None:
    package = shutil.copytree(clean, tmp_path / "package")
    planted = plant(package, Case("bias", "engine"), np.random.default_rng(0))
    done = bonsai(str(package), "--json")
    assert done.returncode == 0, done.stderr
    (finding,) = json.loads(done.stdout)["findings"]
    assert (finding["layer"], finding["kind"], finding["place"]) == tuple(planted)
    assert "build the engine again from model.onnx" in finding["do"]


def test_what_is_no_package_and_a_page_inside_the_package_are_refused(clean: Path, tmp_path: Path) -> None:
    nothing = bonsai(str(tmp_path))
    assert nothing.returncode == 6
    assert "no package, for it has no manifest.json" in nothing.stderr
    inside = bonsai(str(clean), "--out", str(clean / "page"))
    assert inside.returncode == 2
    assert "--out: lies in a package, which is sealed" in inside.stderr


def test_torch_is_refused_where_the_package_holds_no_network_for_it(package: Path) -> None:
    done = bonsai(str(package), "--torch")
    assert done.returncode == 2
    assert "the package holds no network for torch" in done.stderr
