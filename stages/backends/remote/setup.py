"""Makes the environment on a device that runs engines there: Bonsai's plain install, of the version that runs here."""

import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from packaging.requirements import Requirement

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.backends.remote.build_mark import DISTRIBUTION, this_build
from bonsai.stages.backends.remote.connection import Connection
from bonsai.stages.backends.remote.refusals import Unreachable
from bonsai.stages.backends.remote.shell import Done, Shell, in_shell, open_shell
from bonsai.stages.backends.remote.wheel import write_wheel
from bonsai.stages.errors import DeviceUnavailable
from bonsai.stages.hashing import sha256_of
from bonsai.stages.training.progress import say

EXTRAS = ("openvino", "rtx", "tensorrt")
"""Extras of Bonsai's that bring a runtime."""
LEAST_PYTHON = (3, 10)
PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10")
ASK = """
for name in "$@"; do
  command -v "$name" >/dev/null 2>&1 || continue
  "$name" -c 'import sys, platform, sysconfig
try:
    import venv, ensurepip
    whole = "whole"
except ImportError:
    whole = "bare"
print(sys.executable, *sys.version_info[:2], platform.system(), platform.machine(), whole)' 2>/dev/null
done
true
"""
"""Prints a line for each Python of a device."""
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
"""Tags of the wheels that a Linux of the last years takes; pip does not conclude from one to the older ones."""
UPLOADS = ".cache/bonsai-device/wheels"
"""Folder of wheels, below the home folder of the device."""
TOLD = ("Collecting", "Downloading", "Installing", "Successfully", "ERROR")
NO_NETWORK = ("Failed to establish a new connection", "Temporary failure in name resolution", "No matching distribution", "Network is unreachable", "timed out")


class Wanted(NamedTuple):
    """What is set up.

    Attributes:
        python: Path of the Python to make, in an environment of its own: ``FOLDER/bin/python``.
        extras: Extras with runtimes, of `EXTRAS`.
        wheels: Folder of this machine with wheels for a device without network; None where pip may ask the package index.
        system_packages: Whether the environment sees the packages of the device's system, such as JetPack's TensorRT.
    """

    python: str
    extras: tuple[str, ...] = ()
    wheels: Path | None = None
    system_packages: bool = False


class Base(NamedTuple):
    """A Python of the device's system."""

    path: str
    version: tuple[int, int]
    system: str
    architecture: str
    has_venv: bool


def set_up(address: str, wanted: Wanted) -> list[str]:
    """Make an environment on a device, or bring it up to date, and return what was found and done, line by line.

    Raises:
        ConfigError: A choice cannot be used.
        DeviceUnavailable: The device is not reached, or lacks something; the message says what, and how to mend it.
    """
    home = _environment_of(wanted.python)
    for extra in wanted.extras:
        if extra not in EXTRAS:
            raise ConfigError(describe("--extra: no runtime comes with this", given=extra, allowed=EXTRAS, fix="choose one of them, or leave it out"))
    if wanted.wheels is not None and not list(wanted.wheels.glob("*.whl")):
        raise ConfigError(describe("--wheels: no wheels there", given=wanted.wheels, allowed="a folder of .whl files", fix="see docs/devices.md"))
    with open_shell(address) as shell:
        if not wanted.extras and _is_current(address, wanted.python):
            return [f"{address}: {wanted.python} has {this_build()} already"]
        base = _find_base(shell)
        say(f"{address}: Python {'.'.join(map(str, base.version))} on {base.system} {base.architecture}")
        if shell.script(f'test -x "{_at_home(wanted.python)}"').code:
            _make_environment(shell, base, home, system_packages=wanted.system_packages)
        _install(shell, base, wanted)
    Connection(address, wanted.python).close()  # raises where the agent does not answer, or is another one
    return [f"{address}: {wanted.python} has {this_build()}", f"in the profile: target: {{device: {{address: {address!r}, python: {wanted.python!r}}}}}"]


def _environment_of(python: str) -> str:
    """Return the folder of the environment that a Python is in."""
    path = PurePosixPath(python)
    if path.parent.name != "bin" or len(path.parts) < 3:
        raise ConfigError(describe("--python: no place for an environment", given=python, allowed="FOLDER/bin/python", fix="for example ~/bonsai/bin/python"))
    return str(path.parent.parent)


def _is_current(address: str, python: str) -> bool:
    try:
        Connection(address, python).close()
    except Unreachable:
        return False
    return True


def _find_base(shell: Shell) -> Base:
    """Return the first Python of the device that is new enough and can make environments.

    Raises:
        DeviceUnavailable: There is none.
    """
    found: list[Base] = []
    for line in shell.script(ASK, *PYTHONS).output.splitlines():
        path, major, minor, system, architecture, venv = line.rsplit(" ", 5)
        found.append(Base(path, (int(major), int(minor)), system, architecture, venv == "whole"))
    new = [base for base in found if base.version >= LEAST_PYTHON]
    if not new:
        given = ", ".join(f"{base.path} {'.'.join(map(str, base.version))}" for base in found) or "no python3"
        problem = f"{shell.address}: there is no Python that is new enough"
        raise DeviceUnavailable(describe(problem, given=given, allowed="3.10 or later", fix="install one there: apt install python3 python3-venv"))
    whole = next((base for base in new if base.has_venv), None)
    if whole is None:
        problem = f"{shell.address}: its Python cannot make environments"
        raise DeviceUnavailable(
            describe(problem, given=new[0].path, allowed="a Python with venv and ensurepip", fix="install it there: apt install python3-venv")
        )
    return whole


def _make_environment(shell: Shell, base: Base, home: str, *, system_packages: bool) -> None:
    say(f"{shell.address}: making the environment {home}")
    done = shell.run([base.path, "-m", "venv", *(["--system-site-packages"] if system_packages else []), home])
    if done.code:
        raise _failed(shell, "the environment cannot be made", done, "free space in the home folder, and check its rights")


def _install(shell: Shell, base: Base, wanted: Wanted) -> None:
    """Install the wheel of this Bonsai, and what it needs."""
    home = shell.script('mkdir -p "$HOME/$1" && cd "$HOME/$1" && pwd', UPLOADS).output.strip()
    with tempfile.TemporaryDirectory(prefix="bonsai-") as scratch:
        own = write_wheel(Path(scratch))
        others = sorted(wanted.wheels.glob("*.whl")) if wanted.wheels is not None else []
        _send(shell, [own, *others], home)
        place = f"{home}/{own.name}"
    offline = ["--no-index", "--find-links", home] if wanted.wheels is not None else []
    extras = f"[{','.join(wanted.extras)}]" if wanted.extras else ""
    pip = [wanted.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *offline]
    for arguments in ([f"{place}{extras}"], ["--force-reinstall", "--no-deps", place]):
        done = shell.follow([*pip, *arguments], lambda line: say(f"{shell.address}: {line}") if line.strip().startswith(TOLD) else None)
        if done.code:
            raise _failed(shell, "what Bonsai needs cannot be installed", done, _without_network(shell.address, base, wanted, done))


def _send(shell: Shell, wheels: Sequence[Path], home: str) -> None:
    """Send the wheels that the device does not have."""
    listed = shell.script('cd "$1" && sha256sum *.whl 2>/dev/null', home).output.splitlines()
    there = {name.lstrip(" *"): digest for digest, _, name in (line.partition(" ") for line in listed)}
    for number, wheel in enumerate(wheels, start=1):
        with wheel.open("rb") as stream:
            digest = sha256_of(stream)
        if there.get(wheel.name) != digest:
            say(f"{shell.address}: sending {wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB, {number} of {len(wheels)})")
            shell.send(wheel, f"{home}/{wheel.name}")


def _without_network(address: str, base: Base, wanted: Wanted, done: Done) -> str:
    """Return what to do where pip fails: without network, the commands that fetch wheels for the device on this machine."""
    if not any(words in done.output for words in NO_NETWORK):
        return "see what pip says, mend it on the device, and run the same again"
    version = ".".join(map(str, base.version))
    platforms = [word for tag in PLATFORMS for word in ("--platform", f"{tag}_{base.architecture}")]
    download = ["pip", "download", "--dest", "wheels", "--only-binary=:all:", "--python-version", version, *platforms, *_needed(wanted.extras)]
    again = ["bonsai", "device", "setup", address, "--python", wanted.python, *(word for extra in wanted.extras for word in ("--extra", extra))]
    return f"fetch wheels on a machine with network, `{in_shell(download)}`, then `{in_shell([*again, '--wheels', 'wheels'])}`"


def _needed(extras: Sequence[str]) -> list[str]:
    """Return the requirements of the plain install and of some extras."""
    found = []
    for text in metadata.requires(DISTRIBUTION) or []:
        needed = Requirement(text)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            needed.marker = None
            found.append(str(needed))
    return found


def _failed(shell: Shell, problem: str, done: Done, fix: str) -> DeviceUnavailable:
    said = [line.strip() for line in f"{done.output}\n{done.errors}".splitlines() if line.strip()]
    errors = [line for line in said if line.startswith("ERROR")] or said[-1:]
    return DeviceUnavailable(
        describe(f"{shell.address}: {problem}", given="; ".join(errors) or f"code {done.code}", allowed="an install that ends well", fix=fix)
    )


def _at_home(path: str) -> str:
    return path.replace("~/", "$HOME/", 1)
