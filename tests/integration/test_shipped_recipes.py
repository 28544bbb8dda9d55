"""Each shipped recipe runs in a shortened form. Its package is verified, and its predict.py answers. A new recipe is found by itself."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file

from bonsai import compress
from bonsai.pipeline.recipes.recipe import Recipe, list_recipes, load_recipe
from bonsai.pipeline.run.loading import load
from bonsai.pipeline.run.own_preprocessing import prepare_inputs
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.registry import LOADERS
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.imports.registry import resolve
from bonsai.stages.networks.config import RECIPE
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store

pytestmark = pytest.mark.slow

SHORT = {
    "training.epochs": 1,
    "training.threads": 1,
    "prune.policy": {"name": "epoch", "epoch": 0.5},
    "prune.recover": {},
    "prune.rounds": 1,
    "prune.margin": 0.1,
    "prune.tolerance": 0.3,
    "quantize.qat": "never",
    "export.min_agreement": 0.5,  # so little training leaves outputs that hardly differ: roundings decide between them
    "export.max_mean_difference": 0.5,
    "timing": {"runs": 200, "block": 25, "warmup_runs": 20, "warmup_seconds": 0.0, "fitting": 4, "tries": 1, "verdict": {"most": 3}},
    "profile.gates": {"max_drop": 1},
}
PARTS = {"train": 320, "validation": 80, "test": 80}


class Ran(NamedTuple):
    """A recipe that was run.

    Attributes:
        package: What the run returned.
        folder: The published package.
        dataset: The data of the run.
    """

    package: Package
    folder: Path
    dataset: Dataset


def shortened(recipe: Recipe) -> dict[str, Any]:
    """Return what makes a recipe short: data that is drawn is drawn in smaller parts, other data has a smaller training part."""
    takes = inspect.signature(resolve(recipe.data.name, LOADERS, "dataset")).parameters
    smaller = {f"data.options.{part}": size for part, size in PARTS.items() if part in takes}
    return SHORT | (smaller or {"data.test": 0.6})


def run(name: str, store: Path, done: dict[str, Ran]) -> Ran:
    """Run a recipe, and before it the one whose network it starts with; each once."""
    if name not in done:
        recipe = load_recipe(name)
        if (recipe.model.weights or "").startswith(RECIPE):
            run((recipe.model.weights or "").removeprefix(RECIPE), store, done)
        (package,) = compress(name, None, shortened(recipe), store=store)
        dataset = Store(store).find(prepare, **prepare_inputs(load(name, None, shortened(recipe))[0]))
        assert dataset is not None
        done[name] = Ran(package, store / "packages" / package.name, dataset)
    return done[name]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shipped")


@pytest.fixture(scope="module")
def done() -> dict[str, Ran]:
    return {}


@pytest.fixture(params=list_recipes())
def ran(request: pytest.FixtureRequest, store: Path, done: dict[str, Ran]) -> Ran:
    return run(str(request.param), store, done)


def predict(folder: Path, *words: object) -> list[dict[str, Any]]:
    """Return what a package's own program prints as JSON."""
    command = [sys.executable, "-P", str(folder / "predict.py"), *map(str, words), "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", "ORT_DISABLE_TELEMETRY": "1"})
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_a_shipped_recipe_ends_in_a_pruned_engine_that_is_verified(ran: Ran) -> None:
    dense, *_, shipped = ran.package.rows
    assert shipped.shipped
    assert shipped.parameters < dense.parameters
    assert shipped.latency is not None
    assert dense.latency is not None
    assert shipped.latency.p50 < dense.latency.p50
    assert any("gives the golden outputs" in line for line in verify_package(ran.folder, require_run=True))


def test_predict_answers_for_arrays_and_for_a_table_of_them(ran: Ran, tmp_path: Path) -> None:
    samples = load_file(ran.dataset.folder / "test.safetensors")["images"][:3]
    np.save(tmp_path / "batch.npy", samples)
    np.save(tmp_path / "second.npy", samples[1])
    (tmp_path / "table.csv").write_text("path\nsecond.npy\n")
    batch = predict(ran.folder, tmp_path / "batch.npy")
    (alone,) = predict(ran.folder, tmp_path / "table.csv")
    assert [line["sample"] for line in batch] == [0, 1, 2]
    assert {key: value for key, value in alone.items() if key not in {"file", "sample"}} == {
        key: value for key, value in batch[1].items() if key not in {"file", "sample"}
    }
