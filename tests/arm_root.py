"""A root of Debian for arm64 with Bonsai's plain install, whose programs an emulator runs: a Raspberry Pi for everything but times.

    root = make_root()                      # some 30 seconds; then it is in a cache
    with installed(root) as board:
        board.bonsai("verify", "/tmp/package")

Debian's packages and the wheels are fetched from their own indices. The emulator is unpacked, not installed. It runs one process: the kernel of this machine
starts no file for arm64, so Bonsai is told by BONSAI_PYTHON how its own processes are started.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from light_environment import BONSAI, plain_install

from bonsai.stages.backends.remote.wheel import write_wheel
from bonsai.stages.interpreter import VARIABLE
from bonsai.stages.store.locks import hold

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bonsai-tests" / "arm64"
EMULATOR, PACKAGE = "qemu-aarch64-static", "qemu-user-static"
SYSTEM = "python3-minimal,python3,libpython3.11-stdlib,libstdc++6"
RELEASE, PYTHON, VERSION = "bookworm", "/usr/bin/python3.11", "311"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
SITE = "/opt/site"
SECONDS = 500


class Board:
    """The root with this very Bonsai.

    Args:
        root: Folder of the root.
        site: Folder in it that has Bonsai.
    """

    def __init__(self, root: Path, site: str) -> None:
        self.root, self._site = root, site

    @property
    def command(self) -> list[str]:
        """What starts Python in the root; the program's arguments follow."""
        variables = {"PYTHONPATH": f"{self._site}:{SITE}", VARIABLE: f"/usr/bin/{EMULATOR} {PYTHON}", "HOME": "/tmp", "OMP_NUM_THREADS": "1"}
        settings = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
        return ["chroot", str(self.root), f"/usr/bin/{EMULATOR}", *settings, PYTHON]

    def python(self, *arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
        """Run Python in the root, without one of the environment variables."""
        command = self.command
        if without:
            place = next(number for number, word in enumerate(command) if word.startswith(f"{without}="))
            command = command[: place - 1] + command[place + 1 :]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=SECONDS)

    def bonsai(self, *words: str, without: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of Bonsai in the root."""
        return self.python("-m", "bonsai", *words, without=without)


def make_root() -> Path:
    """Return the root with what the plain install asks for; skip the test where it cannot be made.

    It is made once for each list of versions, by one process at a time.
    """
    if os.geteuid() != 0 or not shutil.which("chroot"):
        pytest.skip("a root of another architecture needs the rights to change the root")
    if not shutil.which("mmdebstrap"):
        pytest.skip("Debian's mmdebstrap is not installed")
    wheels = [name for name in plain_install() if name != BONSAI]
    stamp = hashlib.sha256("\n".join([RELEASE, SYSTEM, VERSION, *wheels, CONSTRAINTS.read_text()]).encode()).hexdigest()[:12]
    root = CACHE / stamp
    CACHE.mkdir(parents=True, exist_ok=True)
    with hold(CACHE / "lock", wait=True):
        if not root.exists():
            with TemporaryDirectory(dir=CACHE) as scratch:
                fresh = Path(scratch) / "root"
                _debian(fresh)
                _wheels(fresh, wheels)
                fresh.rename(root)
    return root


def _debian(root: Path) -> None:
    _try(f"the packages of {RELEASE} for arm64", ["mmdebstrap", "--quiet", "--arch=arm64", "--variant=extract", f"--include={SYSTEM}", RELEASE, str(root)])
    found = shutil.which(EMULATOR)
    if found is None:
        unpacked = root.parent
        _try(PACKAGE, ["apt-get", "download", PACKAGE], cwd=unpacked)
        _try(PACKAGE, ["dpkg", "-x", *map(str, unpacked.glob("*.deb")), str(unpacked / "emulator")])
        found = str(unpacked / "emulator" / "usr" / "bin" / EMULATOR)
    shutil.copy(found, root / "usr" / "bin" / EMULATOR)


def _wheels(root: Path, names: list[str]) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", f"{root}{SITE}", "--only-binary=:all:", "--python-version", VERSION]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    _try("the wheels for arm64", [*pip, *platforms, "-c", str(CONSTRAINTS), *names])


def _try(what: str, command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        pytest.skip(f"{what} cannot be had: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


@contextmanager
def installed(root: Path) -> Iterator[Board]:
    """Have this very Bonsai in the root while a block runs."""
    with TemporaryDirectory(dir=root / "opt", prefix="bonsai-") as site, TemporaryDirectory() as scratch:
        with zipfile.ZipFile(write_wheel(Path(scratch))) as wheel:
            wheel.extractall(site)
        yield Board(root, f"/opt/{Path(site).name}")
