"""A whole run on more images than are kept in memory: the store has an index, and the files are read whenever they are needed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bonsai import compress
from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.storing import MOST_BYTES
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.delivery.verification import verify_package
from bonsai.stages.store.store import load_artifact

pytestmark = pytest.mark.slow  # a whole run

CONFIGS = Path(__file__).parent / "configs"
SIDE, CLASSES = 512, {"blue": (40, 60, 200), "red": (200, 60, 40)}
COUNT = MOST_BYTES // (len(CLASSES) * 3 * SIDE * SIDE) + 1
"""Images of each class: as few as are too many for the memory."""
QUICK = {
    "training.epochs": 1,
    "training.batch_size": 16,
    "training.workers": 2,
    "quantize.qat": "never",
    "profile.target.precision": "int8",  # calibrates on images of the index
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name, colour in CLASSES.items():
        (root / name).mkdir()
        for number in range(COUNT):
            coarse = (np.array(colour) + rng.normal(0, 60, (8, 8, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(coarse).resize((SIDE, SIDE)).save(root / name / f"{number}.jpg")
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def package(images: Path, store: Path) -> Package:
    settings = {
        **QUICK,
        "model": {"name": "task_problems:Patches"},
        "data.name": "image_folder",
        "data.options": {"root": str(images), "size": SIDE},
    }
    (made,) = compress(str(CONFIGS / "tiny.yaml"), str(CONFIGS / "tiny-wide.yaml"), settings, store=store)
    return made


def test_the_store_has_an_index_and_no_pixels(package: Package, images: Path, store: Path) -> None:
    (folder,) = (store / "prepare").iterdir()
    dataset = load_artifact(Dataset, folder)
    assert dataset.stored == "index"
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 1_000_000
    assert sum(dataset.sizes.values()) * 3 * SIDE * SIDE > MOST_BYTES


def test_the_engine_has_learnt_from_files_and_verifies(package: Package, store: Path) -> None:
    shipped = next(row for row in package.rows if row.shipped)
    assert shipped.judged.value > 0.9
    assert any("gives the golden outputs" in line for line in verify_package(store / "packages" / package.name, require_run=True))


def test_predict_finds_the_test_images_again(package: Package, images: Path, store: Path) -> None:
    program = store / "packages" / package.name / "predict.py"
    done = subprocess.run([sys.executable, program, "--check", images], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "these are its test samples; the figures are equal" in done.stdout
