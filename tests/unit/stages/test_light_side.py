"""What reads packages, and what builds, times and runs engines, works where torch and its relatives are not installed."""

import subprocess
import sys

import pytest

BLOCKED = """
import sys
HEAVY = {"torch", "torchvision", "torch_pruning", "prefect", "fastapi", "onnxscript", "onnxsim", "sklearn", "matplotlib"}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
EVERY_MODULE = """
import importlib, pkgutil
ROOMS = ["bonsai.profiles", "bonsai.stages.store", "bonsai.stages.measurement", "bonsai.stages.backends", "bonsai.stages.delivery",
         "bonsai.stages.reporting", "bonsai.stages.imports", "bonsai.pipeline.recipes", "bonsai.pipeline.cli"]
WITH_TORCH = {"bonsai.stages.backends.tensorrt_run"}  # its buffers on the GPU are torch's
for room in ROOMS:
    for found in pkgutil.walk_packages(importlib.import_module(room).__path__, room + "."):
        if found.name not in WITH_TORCH:
            importlib.import_module(found.name)
"""
COMMAND = """
import sys
sys.argv = ["bonsai", *{words!r}]
from bonsai.pipeline.cli.main import main
main()
"""


def in_a_bare_interpreter(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, check=False)


def test_rooms_of_the_light_side_import_nothing_heavy() -> None:
    found = in_a_bare_interpreter(EVERY_MODULE)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["schema", "recipe"], *(["list", what] for what in ("recipes", "profiles", "models", "datasets", "backends", "trackers"))]
)
def test_commands_that_read_need_nothing_heavy(words: list[str]) -> None:
    found = in_a_bare_interpreter(COMMAND.format(words=words))
    assert found.returncode == 0, found.stderr
    assert found.stdout
