"""The plain install, from the package index: no torch, no Prefect, and on Python 3.10 too, which Jetsons have."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from light_environment import ROOT, build_wheel, install

pytestmark = pytest.mark.long  # builds a wheel and environments

TRAIN = ("torch", "torchvision", "torch_pruning", "prefect", "fastapi", "onnxscript", "onnxsim", "sklearn", "matplotlib")
PYTHONS = {"this": sys.executable, "3.10": "python3.10"}
MAKE = """
import sys
from importlib.util import find_spec
from pathlib import Path
from tiny_package import make_package
make_package(Path(sys.argv[1]))  # builds an engine from an ONNX file and runs it
print([name for name in sys.argv[2:] if find_spec(name)])
"""
TIME = """
import sys
from pathlib import Path
import numpy as np
from bonsai.profiles.loader import load_profile
from bonsai.stages.backends.device import TimingProtocol
from bonsai.stages.backends.engine import EngineFile
from bonsai.stages.backends.process_timing import time_in_process
from bonsai.stages.backends.registry import backend_of
from bonsai.stages.backends.timing import time_interleaved
from bonsai.stages.backends.timing_config import TimingConfig
package = Path(sys.argv[1])
target = load_profile("local-cpu", {"target.precision": "fp32"}).target
engine = package / "engine.onnx"
run = backend_of(target).open_engine(engine, target)
timing = TimingConfig(warmup_runs=2, warmup_seconds=0, runs=60, seconds=1)
images = np.zeros((1, 1, 8, 8), np.float32)
here = time_interleaved({"tiny": run}, {"tiny": images}, timing)
protocol = TimingProtocol(timing=timing, clock="wall", percentile=50, once=True)
apart = time_in_process({"tiny": EngineFile(file=engine, target=target)}, {"tiny": images}, protocol).samples
print(bool((here["tiny"] > 0).all() and (apart["tiny"] > 0).all()))
"""


def works(python: str) -> bool:
    return shutil.which(python) is not None and subprocess.run([python, "-c", "import venv"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(
    scope="module",
    params=[pytest.param(python, id=name, marks=pytest.mark.skipif(not works(python), reason=f"no {python}")) for name, python in PYTHONS.items()],
)
def home(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the commands' folder of an environment that has the wheel and what it asks for."""
    home = tmp_path_factory.mktemp("env")
    install(request.param, wheel, home)
    yield home / "bin"
    shutil.rmtree(home)  # a quarter of a gigabyte


def said(command: list[object], folder: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT / "tests"), "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_the_plain_install_reads_packages_and_builds_times_and_runs_engines(home: Path, tmp_path: Path) -> None:
    bonsai, python, package = home / "bonsai", home / "python", tmp_path / "package"
    package.mkdir()
    assert said([python, "-c", MAKE, package, *TRAIN], tmp_path).stdout.strip() == "[]"
    assert "local-cpu" in said([bonsai, "list", "profiles"], tmp_path).stdout
    assert "resnet20" in said([bonsai, "list", "models"], tmp_path).stdout
    assert said([bonsai, "show", package], tmp_path).stdout.startswith("tiny--local-cpu")
    assert "3 images" in said([bonsai, "verify", "--require-run", package], tmp_path).stdout
    said([bonsai, "report", package, "--out", "report"], tmp_path)
    assert "tiny--local-cpu" in (tmp_path / "report" / "report.html").read_text()
    said([bonsai, "layout", "ort", package, "--out", "models"], tmp_path)
    assert list((tmp_path / "models").rglob("*.ort"))
    assert said([python, "-c", TIME, package], tmp_path).stdout.strip() == "True"
    for words in (["run", "resnet-edge"], ["init", "--data", "images"], ["serve"]):
        assert "pip install 'bonsai-compress[train]'" in said([bonsai, *words], tmp_path, code=2).stderr
