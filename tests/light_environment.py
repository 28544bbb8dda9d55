"""Environments with the plain install alone: what a device has, and no torch.

`install` makes one as a user does, from a wheel and the package index. `link` makes one in a second, of links to what is installed here.
"""

import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
BONSAI = "bonsai-compress"


def build_wheel(out: Path) -> Path:
    """Build a wheel of this source tree."""
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


def install(python: str, wheel: Path, home: Path) -> None:
    """Make an environment that has a wheel and what it asks for."""
    subprocess.run([python, "-m", "venv", str(home)], check=True, capture_output=True)
    done = subprocess.run([home / "bin" / "python", "-m", "pip", "install", "--quiet", str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def link(home: Path) -> Path:
    """Make an environment of links to Bonsai and what its plain install asks for; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, capture_output=True)
    site = next(home.glob("lib/python3*/site-packages"))
    for name in plain_install():
        distribution = metadata.distribution(name)
        for top in sorted({file.parts[0] for file in distribution.files or [] if file.parts[0] not in {"..", "__pycache__"} and file.suffix != ".pth"}):
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    (site / "bonsai").symlink_to(ROOT / "src" / "bonsai")
    return home / "bin" / "python"


def plain_install() -> Iterator[str]:
    """Yield the distributions of the plain install, Bonsai first."""
    seen, ahead = set[str](), [BONSAI]
    while ahead:
        name = ahead.pop(0).lower()
        if name in seen:
            continue
        seen.add(name)
        yield name
        needed = [Requirement(text) for text in metadata.requires(name) or []]
        ahead += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
