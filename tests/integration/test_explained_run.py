"""A package that a real run made is explained with all that its store and torch know; a planted fault is named in it too."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from planted import CASES, plant

from bonsai import compress
from bonsai.pipeline.run.simulated_tensors import simulated_tensors
from bonsai.stages.explanation.explaining import explain
from bonsai.stages.explanation.records import Explanation

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).parent / "configs"
TINY, CPU = (str(CONFIGS / f"{name}.yaml") for name in ("tiny", "tiny-cpu"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explained")
    compress(TINY, [CPU], {"profile.gates.max_drop": "null", "profile.budget.latency": 0.9}, store=root)
    return root


@pytest.fixture(scope="module")
def made(store: Path) -> Path:
    (package,) = [folder for folder in (store / "packages").iterdir() if (folder / "manifest.json").is_file()]
    return package


@pytest.fixture(scope="module")
def explained(store: Path, made: Path) -> Explanation:
    return explain(made, store, simulated_tensors(made))


def test_no_layer_of_a_real_package_stands_out(explained: Explanation) -> None:
    assert explained.findings == ()
    assert explained.accuracy[0].startswith("dense fp32: top-1 ")


def test_the_layers_have_the_network_s_names_and_times_in_three_engines(explained: Explanation) -> None:
    layers = {layer.name: layer for layer in explained.layers}
    assert {"conv1", "layer1.0.conv1", "layer1.0.conv2", "fc", "Add after layer1.0.conv2"} <= set(layers)
    assert all(layer.engine_us for layer in explained.layers)
    conv = layers["layer1.0.conv1"]
    assert conv.dense_us is not None
    assert conv.float_us is not None
    assert conv.engine_us is not None
    assert conv.dense_us > conv.engine_us


def test_the_file_and_its_float_form_compute_what_torch_does(explained: Explanation) -> None:
    assert explained.outputs["torch float"] < 1e-4
    assert explained.outputs["simulated"] < 0.02
    simulated = {layer.name: layer.simulated for layer in explained.layers if layer.simulated is not None}
    assert {"conv1", "layer1.0.conv1", "layer1.0.conv2"} <= set(simulated)
    assert all(error < 0.01 for error in simulated.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind} in {case.place}")
def test_every_kind_of_fault_is_named_in_a_real_package(made: Path, tmp_path: Path, case: tuple[str, str]) -> None:
    package = shutil.copytree(made, tmp_path / "package")
    number = [tuple(each) for each in CASES].index(tuple(case))
    planted = plant(package, CASES[number], np.random.default_rng([7, number]))
    found = explain(package, tmp_path)
    assert [(finding.layer, finding.kind, finding.place) for finding in found.findings] == [tuple(planted)]
