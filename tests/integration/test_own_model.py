"""The stranger's path: an empty folder, images of one's own, `bonsai init`, `bonsai run`, and what is done with the result."""

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFilter

from bonsai.pipeline.cli.lineage_tree import read_family
from bonsai.stages.store.artifact import MOMENTS
from bonsai.stages.store.garbage import free
from bonsai.stages.store.manifest import MANIFEST

pytestmark = pytest.mark.slow  # a whole run

ROOT = Path(__file__).parents[2]
SHAPES = {"circle": (48, 1.0), "triangle": (3, 1.0), "square": (4, 1.0), "star": (10, 0.45), "cross": (8, 0.3)}
QUICK = {
    "training.epochs": "4",
    "training.batch_size": "8",
    "prune.rounds": "1",
    "prune.margin": "0.15",
    "prune.tolerance": "0.2",
    "timing": "{runs: 400, block: 25, warmup_runs: 20, warmup_seconds: 0.02, fitting: 4, tries: 1}",
    "profile.budget.latency": "0.8",
    "profile.gates.max_accuracy_drop": "1",
}


def bonsai(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as its script does: the working directory is not where Python looks for modules."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-P", "-m", "bonsai", *arguments], capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def draw_images(root: Path, classes: int, count: int, side: int) -> None:
    rng = random.Random(0)
    for name, (points, inner) in list(SHAPES.items())[:classes]:
        (root / name).mkdir(parents=True)
        for number in range(count):
            width, height = rng.randint(side, 2 * side), rng.randint(side, 2 * side)
            paper, ink = (tuple(rng.randint(low, low + 100) for _ in range(3)) for low in (155, 10))
            image = Image.new("RGB", (width, height), paper)
            radius, turn = min(width, height) * rng.uniform(0.28, 0.42), rng.uniform(-0.3, 0.3) - math.pi / 2
            corners = []
            for point in range(points):
                reach, angle = radius * (inner if point % 2 else 1), turn + 2 * math.pi * point / points
                corners.append((width / 2 + reach * math.cos(angle), height / 2 + reach * math.sin(angle)))
            ImageDraw.Draw(image).polygon(corners, fill=ink)
            mode = rng.choice(["RGB", "L", "RGBA", "P"])
            suffix = rng.choice([".jpg", ".JPG", ".png"]) if mode in ("RGB", "L") else ".png"
            image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1))).convert(mode).save(root / name / f"{number}{suffix}")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    draw_images(folder / "images", classes=2, count=40, side=24)
    return folder


@pytest.fixture(scope="module")
def initialised(project: Path) -> subprocess.CompletedProcess[str]:
    return bonsai("init", "--data", "images", "--size", "16", cwd=project)


@pytest.fixture(scope="module")
def finished(project: Path, initialised: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert initialised.returncode == 0, initialised.stderr
    settings = [text for key, value in QUICK.items() for text in ("--set", f"{key}={value}")]
    return bonsai("run", "my-recipe.yaml", "--json", *settings, cwd=project)


def test_init_names_what_it_wrote_and_what_comes_next(initialised: subprocess.CompletedProcess[str]) -> None:
    assert initialised.stdout.splitlines()[-4:] == ["wrote my-recipe.yaml", "wrote my-device.yaml", "wrote my_model.py", "next: bonsai run my-recipe.yaml"]


def test_run_ends_in_an_engine_that_verifies(project: Path, finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stderr
    (package,) = json.loads(finished.stdout)
    assert (package["name"], package["passed"]) == ("my-recipe--my-device", True)
    assert "\x1b" not in finished.stderr
    assert bonsai("verify", package["folder"], cwd=project).returncode == 0


def test_show_goes_back_to_the_images(project: Path, finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stderr
    store = project / "artifacts"
    family = read_family(str(store / "packages/my-recipe--my-device"), store)
    figures = {node.stage: node.figures for node in family.nodes}
    assert figures["my-recipe--my-device"] == "3 of 3 gates met"
    assert figures["prepare"] == "image_folder, 80 images, 2 classes"
    assert figures["prune"].endswith("channels kept in 6 groups")
    assert all(figures[stage] for stage in ("measure", "compile", "export", "quantize", "recover", "train_dense", "characterize", "benchmark"))
    key = next((store / "measure").iterdir()).name
    assert {node.stage for node in read_family(key[:12], store).nodes} >= {
        "measure",
        "compile",
        "export",
        "quantize",
        "recover",
        "prune",
        "train_dense",
        "prepare",
    }


def test_gc_frees_only_the_moments_of_a_finished_run_so_that_it_can_be_repeated(project: Path, finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stderr
    store = project / "artifacts"
    needed = {ancestor["artifact"] for ancestor in json.loads((store / "packages/my-recipe--my-device" / MANIFEST).read_text())["lineage"]}
    (copy,) = store.glob("package/*")
    made = {file.parent for file in store.glob(f"[!p.]*/*/{MANIFEST}")}
    freed = {store / item.path for item in free(store, keep_days=0).waste}
    assert {folder.parent.name for folder in freed} == {MOMENTS}
    assert made - freed == {file.parent for file in store.glob(f"[!p.]*/*/{MANIFEST}")}
    assert all((store / address / MANIFEST).is_file() for address in needed)
    assert (copy / MANIFEST).is_file()


@pytest.mark.long
def test_three_hundred_images_of_five_classes_are_learnt_and_meet_the_gates(tmp_path: Path) -> None:
    draw_images(tmp_path / "images", classes=5, count=60, side=60)
    assert bonsai("init", "--data", "images", cwd=tmp_path).returncode == 0
    done = bonsai("run", "my-recipe.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = json.loads(done.stdout)
    shipped = next(row for row in package["rows"] if row["shipped"])
    assert package["passed"]
    assert shipped["accuracy"]["top1"] > 0.8
