"""The built wheel, installed in an environment of its own and used from an empty folder."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_ships_every_module_and_yaml_and_nothing_else(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "pipeline", "stages", "profiles"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shipped == {name for name in tracked.stdout.split() if (ROOT / name).exists()}


def test_the_installed_wheel_works_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """The dependencies are those of this environment, made visible to the new one; Bonsai itself comes from the wheel alone."""
    home, empty = tmp_path / "env", tmp_path / "empty"
    venv.create(home, with_pip=True)
    empty.mkdir()
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True, capture_output=True)
    packages = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    site = next((home / "lib").glob("python3*/site-packages"))
    (site / "dependencies.pth").write_text(f"{packages}\n")
    shown = subprocess.run([home / "bin" / "bonsai", "run", "resnet-edge", "--dry-run"], cwd=empty, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "layer3.2.conv1" in shown.stdout
    where = subprocess.run([python, "-c", "import stages; print(stages.__file__)"], cwd=empty, capture_output=True, text=True, check=True)
    assert where.stdout.startswith(str(site))
    assert list(empty.iterdir()) == []
