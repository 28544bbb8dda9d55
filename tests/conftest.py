"""Fixtures and options shared by all tests."""

import shutil
import subprocess
from pathlib import Path

import pytest
from chromium import find_chromium
from tiny_package import make_package

from bonsai.stages.data.config import DataConfig
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.steps.prepare import prepare
from bonsai.stages.store.store import Store


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-gpu", action="store_true", help="fail, instead of skipping, where a GPU test finds no GPU")
    parser.addoption("--require-chromium", action="store_true", help="fail, instead of skipping, where a test of the report's page finds no Chromium")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _skip(items, "gpu", "no NVIDIA GPU in this machine", unless=config.getoption("--require-gpu") or gpu_here())
    _skip(items, "browser", "no Chromium in this machine", unless=config.getoption("--require-chromium") or bool(find_chromium()))


def _skip(items: list[pytest.Item], marker: str, reason: str, *, unless: bool) -> None:
    for item in items:
        if marker in item.keywords and not unless:
            item.add_marker(pytest.mark.skip(reason=reason))


def gpu_here() -> bool:
    return shutil.which("nvidia-smi") is not None and subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).stdout.startswith(b"GPU")


@pytest.fixture
def gpu_required(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--require-gpu"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def small_model() -> ModelConfig:
    return ModelConfig(name="resnet8", options={"width": 16})


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Store(tmp_path_factory.mktemp("digits")).run(prepare, data=DataConfig(name="digits", options={"size": 16}), content="")


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("sealed"))


@pytest.fixture
def package(sealed: Path, tmp_path: Path) -> Path:
    """A copy of a tiny package, to break."""
    return shutil.copytree(sealed, tmp_path / "package")
