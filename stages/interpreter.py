"""How another Python is started that runs Bonsai's code: the working directory, or the folder of a script, hides nothing that is installed.

From 3.11 on Python has the option ``-P`` for that. Python 3.10 is told so in a line of code.
"""

import os
import shlex
import sys
from pathlib import Path

VARIABLE = "BONSAI_PYTHON"
"""Environment variable with the command that starts Python, where its own file alone does not start: `qemu-aarch64-static /usr/bin/python3`."""

HAS_SAFE_PATH = sys.version_info >= (3, 11)
MODULE = "import sys; del sys.path[0], sys.argv[0]; import runpy; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
FILE = "import sys; del sys.path[0], sys.argv[0]; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
CODE = "import sys; del sys.path[0]; "
ANYWHERE = "import sys; sys.path[:] = filter(None, sys.path); del sys.argv[0]; import runpy; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"


def python() -> list[str]:
    """Return the command that starts this Python."""
    return shlex.split(os.environ.get(VARIABLE, "")) or [sys.executable]


def run_module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module."""
    return [*python(), "-P", "-m", name, *arguments] if HAS_SAFE_PATH else [*python(), "-c", MODULE, name, *arguments]


def module_anywhere(name: str) -> list[str]:
    """Return the words behind a Python of any version, maybe on another machine, that run a module."""
    return ["-c", ANYWHERE, name]


def run_file(file: Path) -> list[str]:
    """Return the command that runs a script."""
    return [*python(), "-P", str(file)] if HAS_SAFE_PATH else [*python(), "-c", FILE, str(file)]


def run_code(code: str, *arguments: str) -> list[str]:
    """Return the command that runs a text."""
    return [*python(), "-P", "-c", code, *arguments] if HAS_SAFE_PATH else [*python(), "-c", CODE + code, *arguments]
