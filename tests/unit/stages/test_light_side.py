"""What reads packages, and what builds, times and runs engines, works where torch and its relatives are not installed."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_package import make_package

BLOCKED = """
import sys
from bonsai.stages.imports.training_extra import MODULES
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in MODULES else self.finder.find_spec(name, *rest)
sys.meta_path[:] = map(Without, sys.meta_path)
"""
EVERY_MODULE = """
import importlib, pkgutil
ROOMS = ["bonsai.profiles", "bonsai.stages.store", "bonsai.stages.measurement", "bonsai.stages.backends", "bonsai.stages.delivery",
         "bonsai.stages.explanation", "bonsai.stages.reporting", "bonsai.stages.imports", "bonsai.pipeline.recipes", "bonsai.pipeline.cli"]
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


@pytest.fixture(autouse=True)
def _without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the checkout's artifacts may hold a finished run, which needs nothing heavy


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


@pytest.mark.parametrize(
    "words",
    [
        ["run", "resnet-edge"],
        ["compare", "resnet-edge"],
        ["characterize", "resnet-edge"],
        ["init", "--data", "images"],
        ["import", "pruning_config.json", "--data", "images", "--model", "resnet8"],
        ["serve"],
    ],
    ids=lambda words: words[0],
)
def test_a_command_that_trains_names_the_extra(words: list[str]) -> None:
    found = in_a_bare_interpreter(COMMAND.format(words=words))
    assert found.returncode == 2
    assert "do:      pip install 'bonsai-compress[train]'" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("command", ["run", "compare", "characterize"])
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["resnet-egde"], "no recipe of this name (did you mean 'resnet-edge'?)"),
        (["resnet-edge", "--profile", "lokal-cpu"], "no profile of this name (did you mean 'local-cpu'?)"),
        (["resnet-edge", "--set", "prune.epii=2"], "unknown key 'prune.epii' (did you mean 'epi'?)"),
    ],
)
def test_a_mistake_is_told_before_torch_is_imported(words: list[str], problem: str, command: str) -> None:
    found = in_a_bare_interpreter(COMMAND.format(words=[command, *words]))
    assert found.returncode == 2
    assert problem in found.stderr


def test_compress_names_the_extra() -> None:
    found = in_a_bare_interpreter("from bonsai import compress")
    assert found.returncode == 1
    assert "ConfigError: this needs the extra `train`, which is not installed" in found.stderr


def test_a_package_is_shown_reported_verified_and_laid_out_without_anything_heavy(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    make_package(package)
    for words in (
        ["show", str(package)],
        ["verify", "--require-run", str(package)],
        ["layout", "ort", str(package), "--out", str(tmp_path / "models")],
        ["report", str(package), "--out", str(tmp_path / "report")],
        ["explain", str(package), "--out", str(tmp_path / "explained")],
    ):
        found = in_a_bare_interpreter(COMMAND.format(words=words))
        assert found.returncode == 0, found.stderr
    page = (tmp_path / "report" / "report.html").read_text()
    assert "matplotlib is not installed" in page
    assert "<svg" not in page
