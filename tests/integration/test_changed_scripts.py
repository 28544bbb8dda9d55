"""Scripts of others (examples/), at most eight changed lines of each, and the engines that they end with, within milliseconds."""

import difflib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bonsai.stages.delivery.contents import read_any_intact
from bonsai.stages.delivery.deployed import DeployedManifest

EXAMPLES = Path(__file__).parents[2] / "examples"
PAIRS = {folder: (f"{folder}/before.py", f"{folder}/after.py") for folder in ("plain", "lightning", "transformers", "timm", "ultralytics")}
PAIRS["torchvision"] = ("torchvision/classify_before.py", "torchvision/classify_after.py")
FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
UNCHANGED = "import sys, bonsai, runpy; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
"""Runs a script of others where `import torchvision` fails without Bonsai: beside a CPU build of torch (`stages/imports/torchvision_hook.py`)."""


@pytest.mark.parametrize("name", PAIRS)
def test_a_script_becomes_bonsais_by_eight_changed_lines_at_most(name: str) -> None:
    before, after = ((EXAMPLES / file).read_text().splitlines() for file in PAIRS[name])
    changed = [line for line in difflib.ndiff(before, after) if line.startswith(("+", "-"))]
    assert 5 <= len(changed) <= 8, changed


def run(*arguments: str, folder: Path, script: str) -> str:
    """Run a script in a fresh process, and return what it prints."""
    paths = [str((EXAMPLES / script).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    offline = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": str(folder / "config"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, **offline, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


@pytest.mark.slow  # latency is measured
@pytest.mark.parametrize("name", PAIRS)
def test_a_changed_script_ends_with_an_engine_within_its_milliseconds(name: str, tmp_path: Path) -> None:
    if name != "plain":
        pytest.importorskip(name)
    if name == "ultralytics":
        (tmp_path / "config" / "Ultralytics").mkdir(parents=True)
        if FONT.is_file():
            (tmp_path / "config" / "Ultralytics" / "Arial.ttf").write_bytes(FONT.read_bytes())  # else it is looked for on the network
    before, after = (EXAMPLES / file for file in PAIRS[name])
    described = before.with_name("pruning.py") if name == "ultralytics" else before
    dense_ms = float(run(str(EXAMPLES / "dense_latency.py"), str(described), folder=tmp_path, script=PAIRS[name][0]).split()[-2])
    run("-c", UNCHANGED, str(before), *(() if name == "ultralytics" else ("--epochs", "1")), folder=tmp_path, script=PAIRS[name][0])
    budget = 0.6 * dense_ms
    said = run(str(after), "--latency-ms", f"{budget:.4f}", folder=tmp_path, script=PAIRS[name][1])
    assert "latency" in said
    manifest = read_any_intact(tmp_path / "artifacts" / "packages" / "model")
    assert isinstance(manifest, DeployedManifest)
    latency = manifest.gates[0]
    assert (latency.name, latency.verdict, latency.limit) == ("latency", "met", pytest.approx(budget, abs=1e-4))
    torch_row, shipped = manifest.rows[-2:]
    assert shipped.score == pytest.approx(torch_row.score, abs=0.02)
    assert shipped.score > (0.3 if name == "ultralytics" else 0.7)
    if name == "ultralytics":
        assert [row.what for row in manifest.rows] == ["dense engine", "torch", "shipped engine"]
        assert manifest.score == "mAP50"
        assert shipped.parameters < 0.9 * manifest.rows[0].parameters
