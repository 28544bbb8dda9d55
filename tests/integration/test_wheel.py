"""The built wheel, installed in an environment of its own and used from an empty folder."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from bonsai.stages.imports.registry import CODE_PATH

pytestmark = pytest.mark.long  # builds wheels and environments

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel; the dependencies are those of this environment, made visible to the new one."""
    home = tmp_path_factory.mktemp("env")
    venv.create(home, with_pip=True)
    subprocess.run([home / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True, capture_output=True)
    packages = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    (site_of(home) / "dependencies.pth").write_text(f"{packages}\n")
    return home


def site_of(home: Path) -> Path:
    return next((home / "lib").glob("python3*/site-packages"))


def test_the_wheel_ships_every_module_and_yaml_and_nothing_else(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "pipeline", "stages", "profiles"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shipped == {"bonsai/__init__.py", "bonsai/__main__.py", *(f"bonsai/{name}" for name in tracked.stdout.split() if (ROOT / name).exists())}


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)], check=True, capture_output=True)  # the wheel is built from the sdist
    assert sorted(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_the_installed_wheel_works_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    shown = subprocess.run([installed / "bin" / "bonsai", "run", "resnet-edge", "--dry-run"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "layer3.2.conv1" in shown.stdout
    code = "import bonsai.stages; print(bonsai.stages.__file__)"
    where = subprocess.run([installed / "bin" / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert where.stdout.startswith(str(site_of(installed)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["wheel", "editable install"])
def test_folders_of_ones_own_may_be_called_pipeline_stages_and_profiles(how: str, installed: Path, tmp_path: Path) -> None:
    for name in ("pipeline", "stages", "profiles"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"MINE = {name!r}\n")
    (tmp_path / "pipeline" / "net.py").write_text(
        "import profiles, stages\nfrom bonsai.stages.networks.cifar_resnet import resnet8\n\n\n"
        "def build(in_channels, num_classes):\n"
        "    assert (profiles.MINE, stages.MINE) == ('profiles', 'stages')\n"
        "    return resnet8(in_channels=in_channels, num_classes=num_classes)\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ndescription: folders named like Bonsai's\nmodel: {name: 'pipeline.net:build'}\ndata: {name: digits, options: {size: 16}}\n"
    )
    home = installed / "bin" if how == "wheel" else Path(sys.executable).parent
    command = [home / "bonsai", "run", "mine.yaml", "--profile", "t4", "--set", "profile.budget.latency=1", "--dry-run"]
    environment = {name: value for name, value in os.environ.items() if name != CODE_PATH}  # where code of other tests lies, which ran in this process
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert shown.returncode == 0, shown.stderr
    assert "layer3.0.conv1" in shown.stdout
