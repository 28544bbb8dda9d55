"""Runs that a real Prefect worker does: which code they may name, where their files are looked for, where their results lie."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from served import TINY, Served
from working import working

from bonsai.stages.networks.cifar_resnet import resnet8

pytestmark = pytest.mark.long  # a Prefect server and its worker

MODEL = """
from pathlib import Path

import torch
from bonsai.stages.networks.cifar_resnet import resnet8

Path(__file__).with_suffix(".imported").touch()


def build(in_channels, num_classes, file, scales):
    network = resnet8(in_channels=in_channels, num_classes=num_classes)
    network.load_state_dict(torch.load(file, weights_only=True))
    Path(scales).read_text()
    return network
"""
NAMES_CODE = [{"model.name": "os:getcwd"}, {"data": {"name": "os:getcwd"}}]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with working(tmp_path_factory.mktemp("working")) as served:
        yield served


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose recipe names all its files by their place in its folder."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(60):
            Image.fromarray(rng.integers(120 * label, 120 * label + 130, (16, 16), dtype=np.uint8)).save(folder / "images" / name / f"{number}.png")
    torch.save(resnet8(in_channels=1, num_classes=2).state_dict(), folder / "weights.pth")
    (folder / "scales.txt").write_text("1")
    (folder / "my_net.py").write_text(MODEL)
    (folder / "my-device.yaml").write_text("extends: local-cpu\nname: my-device\n")
    written = {
        "name": "my-recipe",
        "description": "a project of one's own",
        "profile": "my-device.yaml",
        "model": {"name": "my_net:build", "options": {"file": "weights.pth", "scales": "scales.txt"}, "files": ["weights.pth"]},
        "data": {"name": "image_folder", "options": {"root": "images", "size": 16, "channels": 1}},
    }
    (folder / "my-recipe.yaml").write_text(yaml.safe_dump(written))
    return folder / "my-recipe.yaml"


def overrides_of(more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a run of the project short."""
    short = {key: value for key, value in TINY.items() if not key.startswith(("model.", "data."))}
    return {**short, "training.epochs": 4, "training.batch_size": 8, **more}


@pytest.mark.parametrize("overrides", NAMES_CODE, ids=str)
def test_an_override_that_names_code_is_refused_with_one_message(worker: Served, overrides: dict[str, Any]) -> None:
    run_id = worker.start("compress/resnet-edge", {"overrides": overrides})
    kind, message = worker.outcome(run_id)
    assert kind == "FAILED"
    assert re.match(r"--set \S+: an override may not name code here\n  given:   os:getcwd, BONSAI_IMPORTS=recipes", message), message
    assert not any("Traceback" in line for line in worker.messages(run_id))


def test_a_comparison_refuses_it_too(worker: Served, recipe: Path) -> None:
    given = {"recipe": str(recipe), "profiles": ["local-cpu"], "overrides": {"model.name": "my_net:Path"}}
    kind, message = worker.outcome(worker.start("compare/resnet-edge", given))
    assert kind == "FAILED"
    assert "given:   my_net:Path, BONSAI_IMPORTS=recipes\n  allowed: what the recipe's own file says: my_net:build" in message
    assert not recipe.with_name("my_net.imported").exists()


def test_what_a_recipe_file_names_runs_with_files_from_its_folder(worker: Served, recipe: Path) -> None:
    run_id = worker.start("compress/resnet-edge", {"recipe": str(recipe), "overrides": overrides_of({"model.name": "my_net:build"})})
    kind, message = worker.outcome(run_id)
    assert kind == "COMPLETED", message
    assert (worker.store / "packages" / "my-recipe--my-device" / "engine.onnx").is_file()
    warned = [line for line in worker.messages(run_id) if "not declared under model.files" in line]
    assert warned == ["warning: my_net:build reads scales.txt, not declared under model.files: a change of its contents is not noticed"]


def test_a_relative_recipe_is_refused_with_the_folder_it_was_looked_for_in(worker: Served) -> None:
    kind, message = worker.outcome(worker.start("compress/resnet-edge", {"recipe": "my-recipe.yaml"}))
    assert kind == "FAILED"
    assert re.search(rf"given:   my-recipe.yaml, looked for in {re.escape(tempfile.gettempdir())}/\S+prefect\n", message), message


def test_a_run_without_a_store_is_refused_with_what_to_set(worker: Served) -> None:
    variables = {"job_variables": {"env": {"BONSAI_STORE": ""}}}
    kind, message = worker.outcome(worker.start("compress/resnet-edge", {"overrides": TINY}, **variables))
    assert kind == "FAILED"
    assert message.startswith("BONSAI_STORE names no folder, and the working folder of this run is a temporary one")
    assert "start the worker with BONSAI_STORE=/data/bonsai" in message


def test_deny_refuses_what_a_recipe_file_names(worker: Served, recipe: Path) -> None:
    variables = {"job_variables": {"env": {"BONSAI_IMPORTS": "deny"}}}
    kind, message = worker.outcome(worker.start("compress/resnet-edge", {"recipe": str(recipe)}, **variables))
    assert kind == "FAILED"
    assert re.search(r"my-recipe.yaml:\d+: import strings are not followed here\n  given:   my_net:build, BONSAI_IMPORTS=deny", message), message
