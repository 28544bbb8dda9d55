"""`predict.py` in an environment that has NumPy, Pillow and the runtime alone."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_package import CLASSES, SHAPE, make_package

pytestmark = pytest.mark.long  # installs environments

PYTHONS = {"this": sys.executable, "3.10": "python3.10"}
NEEDED = ("numpy", "pillow", "onnxruntime")
OTHERS = "import importlib.util as u; print([name for name in ('torch', 'bonsai', 'pydantic', 'onnx', 'scipy') if u.find_spec(name)])"


def works(python: str) -> bool:
    return shutil.which(python) is not None and subprocess.run([python, "-c", "import venv"], capture_output=True, check=False).returncode == 0


@pytest.fixture(
    scope="module",
    params=[pytest.param(python, id=name, marks=pytest.mark.skipif(not works(python), reason=f"no {python}")) for name, python in PYTHONS.items()],
)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the Python of an environment with what a device needs."""
    home = tmp_path_factory.mktemp("env")
    subprocess.run([request.param, "-m", "venv", str(home)], check=True, capture_output=True)
    done = subprocess.run([home / "bin" / "python", "-m", "pip", "install", "--quiet", *NEEDED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    yield home / "bin" / "python"
    shutil.rmtree(home)


def said(python: Path, folder: Path, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([str(python), *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_a_package_predicts_and_is_checked_where_nothing_else_is_installed(python: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    make_package(package)
    for number, name in enumerate(CLASSES):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.fromarray(np.full(SHAPE[1:], 80 * number, np.uint8)).save(tmp_path / "test" / name / "a.png")
    assert said(python, tmp_path, "-c", OTHERS).stdout.strip() == "[]"
    file = Path("test") / CLASSES[1] / "a.png"
    found = json.loads(said(python, tmp_path, package / "predict.py", file, "--json").stdout)
    assert found["class"] in CLASSES
    portable = json.loads(said(python, tmp_path, package / "predict.py", file, "--json", "--portable").stdout)
    assert portable["probability"] == pytest.approx(found["probability"], abs=1e-5)
    assert "on 3 of 3 samples, by engine" in said(python, tmp_path, package / "predict.py", "--check", "test").stdout
    assert "usage:" in said(python, tmp_path, package / "predict.py", code=2).stderr
    (package / "engine.onnx").write_bytes(b"another")
    assert "engine.onnx: the file was changed" in said(python, tmp_path, package / "predict.py", file, code=6).stderr
    assert not (package / "__pycache__").exists()
