"""A whole run in which images must get smaller: the budget is below what the narrowest network takes at the full size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

from bonsai import compress, load
from bonsai.profiles.errors import ConfigError
from bonsai.stages.delivery.golden import GOLDEN, IMAGES
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.graph.names import MODEL
from bonsai.stages.store.manifest import MANIFEST

pytestmark = pytest.mark.slow  # a whole run

CONFIGS = Path(__file__).parent / "configs"
TINY, CPU = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-cpu"))
FULL = 24


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the handwritten digits as files, larger than the network takes them."""
    root, digits = tmp_path_factory.mktemp("digits"), load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = root / str(label) / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray((image * 15.9).astype(np.uint8)).resize((32, 32), Image.Resampling.BILINEAR).save(file)
    return root


@pytest.fixture(scope="module")
def settings(images: Path) -> dict[str, object]:
    return {
        "data.name": "image_folder",
        "data.options": {"root": str(images), "size": FULL, "channels": 1},
        "training.epochs": 3,
        "training.threads": 1,
        "quantize.qat": "never",
        "timing.runs": 400,
        "prune.resolutions": [FULL, 16, 12],
        "prune.floor": 0.75,
        "profile.budget.latency": 0.36,
        "profile.gates.max_drop": 1,
        "profile.target.precision": "int8",
        "profile.target.precisions": ["fp32", "int8"],
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resolutions")


@pytest.fixture(scope="module")
def package(root: Path, settings: dict[str, object]) -> Package:
    (package,) = compress(TINY, CPU, settings, store=root)
    return package


@pytest.fixture(scope="module")
def folder(package: Package, root: Path) -> Path:
    return root / "packages" / package.name


def chosen(folder: Path) -> int:
    resolutions = json.loads((folder / MANIFEST).read_text())["decisions"]["resolutions"]
    assert [each["size"] for each in resolutions] == [[FULL, FULL], [16, 16], [12, 12]]
    assert resolutions[0]["value"] is None, "the budget is above the narrowest network at the full size"
    (size,) = (each["size"] for each in resolutions if each["chosen"])
    return int(size[0])


def test_the_engine_takes_the_smaller_images(folder: Path) -> None:
    side = chosen(folder)
    assert side < FULL
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["engine"]["image_shape"] == [1, side, side]
    assert (manifest["preprocess"]["size"], manifest["preprocess"]["full"]) == ([side, side], [FULL, FULL])
    shape = onnx.load(folder / MODEL).graph.input[0].type.tensor_type.shape
    assert [each.dim_value for each in shape.dim][1:] == [1, side, side]
    assert load_file(folder / GOLDEN)[IMAGES].shape[1:] == (1, side, side)


def test_the_dense_network_is_timed_and_tested_at_the_full_size(folder: Path) -> None:
    dense, *_, shipped = json.loads((folder / MANIFEST).read_text())["metrics"]
    assert dense["network"] == "dense"
    assert shipped["macs"] < 0.5 * dense["macs"]
    assert dense["accuracy"]["top1"] > 0.6
    assert dense["accuracy"]["part"] == "test"


def test_card_and_report_say_which_resolution_it_is_and_what_the_others_were_worth(folder: Path) -> None:
    side = chosen(folder)
    card = (folder / "MODEL_CARD.md").read_text()
    assert f"Input resolution {side}x{side}, of {FULL}x{FULL} cannot meet the budget; 16x16 (loss " in card
    assert f"made {FULL}x{FULL} first, then {side}x{side} by bilinear interpolation" in card
    report = (folder / "report.md").read_text()
    assert "Input resolutions among which was chosen" in report
    assert "pruning and smaller images together take off" in report


def test_predict_reproduces_the_figure_from_the_full_files(folder: Path, images: Path) -> None:
    done = subprocess.run([sys.executable, folder / "predict.py", "--check", images], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "these are its test samples; the figures are equal" in done.stdout


def test_the_package_verifies_and_its_network_opens(folder: Path) -> None:
    assert any("gives the golden outputs" in line for line in verify_package(folder, require_run=True))
    network, golden = load(folder), load_file(folder / GOLDEN)
    assert network.eval()(torch.from_numpy(golden[IMAGES])).shape == (len(golden[IMAGES]), 10)


def test_without_smaller_images_the_budget_is_refused(root: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="the latency budget cannot be met"):
        compress(TINY, CPU, {**settings, "prune.resolutions": []}, store=root)


def test_recovery_schedule_and_blocks_go_with_smaller_images(tmp_path: Path) -> None:
    settings = {
        "model": {"name": "resnet20", "options": {"width": 16}},
        "training.epochs": 2,
        "training.threads": 1,
        "prune.resolutions": [8],
        "prune.blocks": True,
        "prune.floor": 0.8,
        "prune.margin": 0.05,
        "prune.schedule": {"name": "linear", "steps": 2, "iterations": 2},
        "prune.recover": {"epochs": "auto", "most": 4},
        "profile.budget.latency": 0.2,
        "profile.gates.max_drop": 0.5,
    }
    (made,) = compress(TINY, str(CONFIGS / "tiny-wide.yaml"), settings, store=tmp_path)
    decisions = json.loads((tmp_path / "packages" / made.name / MANIFEST).read_text())["decisions"]
    assert [each["size"] for each in decisions["resolutions"] if each["chosen"]] == [[8, 8]]
    recovery, dense_history = decisions["recovery"], decisions["dense_history"]
    assert recovery["goal"] == pytest.approx(dense_history[-1]["validation_top1"] - 0.25), "the dense network is judged at the full size"
    dense, shipped = made.rows[0], next(row for row in made.rows if row.shipped)
    share = shipped.macs / dense.macs
    assert share < 0.25
    assert recovery["plain_cost"] == pytest.approx(2 * (1 + 0.5 * max(share, 0.2)))
    assert decisions["forecast"]["dense_overhead_ms"] is not None
