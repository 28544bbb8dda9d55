"""How another Python is started that runs Bonsai's code: the working directory, or the folder of a script, hides nothing that is installed.

From 3.11 on Python has the option ``-P`` for that. Python 3.10 is told so in a line of code.
"""

import sys
from pathlib import Path

HAS_SAFE_PATH = sys.version_info >= (3, 11)
MODULE = "import sys; del sys.path[0], sys.argv[0]; import runpy; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
FILE = "import sys; del sys.path[0], sys.argv[0]; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
CODE = "import sys; del sys.path[0]; "
ANYWHERE = "import sys; sys.path[:] = filter(None, sys.path); del sys.argv[0]; import runpy; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"


def run_module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module."""
    return [sys.executable, "-P", "-m", name, *arguments] if HAS_SAFE_PATH else [sys.executable, "-c", MODULE, name, *arguments]


def module_anywhere(name: str) -> list[str]:
    """Return the words behind a Python of any version, maybe on another machine, that run a module."""
    return ["-c", ANYWHERE, name]


def run_file(file: Path) -> list[str]:
    """Return the command that runs a script."""
    return [sys.executable, "-P", str(file)] if HAS_SAFE_PATH else [sys.executable, "-c", FILE, str(file)]


def run_code(code: str, *arguments: str) -> list[str]:
    """Return the command that runs a text."""
    return [sys.executable, "-P", "-c", code, *arguments] if HAS_SAFE_PATH else [sys.executable, "-c", CODE + code, *arguments]
