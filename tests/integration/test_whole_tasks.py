"""The whole path of every task that is no classification, from a recipe to a package that is verified: networks and images are tiny."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from bonsai import compress
from bonsai.stages.delivery.contents import read_intact
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.delivery.triton import model_config
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.reporting.writing import write_reports

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parent / "configs"
QUICK = {
    "training.epochs": 6,
    "training.batch_size": 32,
    "training.optimizer": "adamw",
    "training.lr": 0.005,
    "timing": {"runs": 200, "block": 25, "warmup_runs": 20, "warmup_seconds": 0.0, "fitting": 4, "tries": 1, "verdict": {"most": 3}},
    "prune.rounds": 1,
    "quantize.epochs": 2,
    "prune.margin": 0.1,
    "prune.tolerance": 0.3,
    "profile.budget.latency": 0.9,
    "profile.gates": {"max_drop": 1},
}


class Problem(NamedTuple):
    """A recipe of a task.

    Attributes:
        settings: Keys of the recipe.
        metric: Name of the metric.
        better: What a network that has learnt something reaches.
        output: Name and shape of the engine's output.
        classes: Names of classes, labels or figures.
    """

    settings: Mapping[str, Any]
    metric: str
    better: float
    output: tuple[str, tuple[int, ...]]
    classes: tuple[str, ...]


PROBLEMS = {
    "multi_label": Problem(
        {
            "model": {"name": "task_problems:Trunk", "options": {"width": 96}},
            "data.name": "task_problems:load_tags",
            "training.loss": {"form": "focal"},
            "training.balance": "weights",
        },
        "map",
        0.75,
        ("logits", (3,)),
        ("red", "green", "blue"),
    ),
    "regression": Problem(
        {
            "model": {"name": "task_problems:Trunk", "options": {"width": 96, "whole": True}},
            "data.name": "task_problems:load_places",
            "training.loss": {"form": "huber", "delta": 0.5},
            "prune.distill": {"weight": 0.5},
        },
        "rmse",
        0.25,
        ("values", (2,)),
        ("row", "column"),
    ),
    "segmentation": Problem(
        {
            "model": {"name": "task_problems:UNet", "options": {"width": 32}, "outputs": ["out"]},
            "data.name": "task_problems:load_masks",
            "training.loss": {"dice": 0.5, "auxiliary": 0.4},
            "training.augment": {"shift": 0.1},
            "prune.distill": {"weight": 0.5},
        },
        "miou",
        0.5,
        ("logits", (3, 16, 16)),
        ("background", "red", "green"),
    ),
}


@pytest.fixture(scope="module", params=PROBLEMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    return tmp_path_factory.mktemp(name)


@pytest.fixture(scope="module")
def package(root: Path, name: str) -> Package:
    (package,) = compress(str(CONFIGS / "tiny.yaml"), str(CONFIGS / "tiny-cpu.yaml"), {**QUICK, "task": name, **PROBLEMS[name].settings}, store=root)
    return package


def test_the_engine_has_learnt_the_task_and_meets_its_gates(package: Package, name: str) -> None:
    problem, shipped = PROBLEMS[name], next(row for row in package.rows if row.shipped)
    assert package.metric.name == problem.metric
    assert package.metric.merit(shipped.judged.value) > package.metric.merit(problem.better)
    assert shipped.judged.low < shipped.judged.value <= shipped.judged.high
    drop = next(gate for gate in package.gates if gate.name == "accuracy drop")
    assert drop.found > 0


def test_the_manifest_and_the_report_tell_of_classes(package: Package, root: Path, name: str) -> None:
    folder, problem = root / "packages" / package.name, PROBLEMS[name]
    manifest = read_intact(folder)
    assert [(output.name, output.shape) for output in manifest.outputs] == [problem.output]
    assert tuple(row[0] for row in manifest.tables[0].rows) == problem.classes
    card, page = (folder / "MODEL_CARD.md").read_text(), (folder / "report.html").read_text()
    for word in (*problem.classes, manifest.tables[0].caption):
        assert word in card
        assert word in page
    assert len(manifest.pictures) == (3 if name == "segmentation" else 0)
    assert page.count("data:image/png;base64,") == len(manifest.pictures)
    write_reports(folder.parent / "again", [manifest], title=manifest.name)


def test_the_engine_gives_its_golden_outputs(package: Package, root: Path, name: str) -> None:
    folder, (output, shape) = root / "packages" / package.name, PROBLEMS[name].output
    assert any("gives the golden outputs of 3 images" in line for line in verify_package(folder, require_run=True))
    assert load_file(folder / "golden.safetensors")[output].shape == (3, *shape)
    graph = onnx.load(folder / "model.onnx").graph
    assert [found.name for found in graph.output] == [output]
    assert not any("aux" in tensor.name for tensor in graph.initializer)
    assert f"dims: {list(shape)}" in model_config(read_intact(folder))


def test_a_second_run_is_compared_with_the_package(package: Package, root: Path, name: str) -> None:
    folder, problem = root / "packages" / package.name, PROBLEMS[name]
    settings = {**QUICK, "task": name, **problem.settings, "quantize.epochs": 3}
    (second,) = compress(str(CONFIGS / "tiny.yaml"), str(CONFIGS / "tiny-cpu.yaml"), settings, store=root, out=root / "second", against=[folder])
    assert second.against is not None
    assert np.isfinite(second.against.drop).all()
    assert json.loads((root / "second" / second.name / "manifest.json").read_text())["recipe"]["task"] == name
