"""The address of a device that is another machine: ``ssh://[user@]host[:port]``."""

import re
from typing import Annotated

from pydantic import AfterValidator

from bonsai.profiles.errors import ConfigError, describe

FORM = re.compile(r"ssh://(?:(?P<user>\w[\w.-]*)@)?(?P<host>\w[\w.-]*|\[[0-9A-Fa-f:.]+(?:%\w+)?\])(?::(?P<port>\d{1,5}))?")
EXAMPLE = "ssh://[user@]host[:port], where host may be a name of your ~/.ssh/config"
PYTHON_FORM = re.compile(r"(?:~/|/)?\w[\w./+ -]*")
HIGHEST_PORT = 65535
PYTHON = "~/bonsai/bin/python"
"""The Python that `bonsai device setup` makes on a device."""


def _is_address(text: str) -> str:
    """Return a text that is an address; pydantic names the key where it is not."""
    found = FORM.fullmatch(text)
    if found is None or not 0 < int(found["port"] or 1) <= HIGHEST_PORT:
        raise ValueError(f"{EXAMPLE}; keys and everything else of the connection belong into ~/.ssh/config")
    return text


def _is_python(text: str) -> str:
    if PYTHON_FORM.fullmatch(text) is None:
        raise ValueError("the path of a Python on the device, such as ~/bonsai/bin/python: letters, digits, spaces and . _ + - / alone")
    return text


Address = Annotated[str, AfterValidator(_is_address)]
Python = Annotated[str, AfterValidator(_is_python)]


def require_address(text: str) -> str:
    """Return an address that was given on the command line.

    Raises:
        ConfigError: It is none.
    """
    try:
        return _is_address(text)
    except ValueError:
        raise ConfigError(describe("not the address of a device", given=text, allowed=EXAMPLE, fix="for example ssh://pi@kitchen.local")) from None


def require_python(text: str) -> str:
    """Return the path of a Python on a device that was given on the command line.

    Raises:
        ConfigError: No path is written so.
    """
    try:
        return _is_python(text)
    except ValueError as error:
        raise ConfigError(describe("not the path of a Python on the device", given=text, allowed=error, fix=f"for example {PYTHON}")) from None
