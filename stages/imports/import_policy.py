"""Decides which import strings are allowed: `BONSAI_IMPORTS` is allow, recipes or deny.

An import string runs code. The user of the command line can run any code anyway. But a run that comes over Prefect's API may come from somebody
else. So by default such a run may only use import strings from recipe files on the disk of the machine that runs it.
"""

import os
from typing import Literal, get_args

from bonsai.profiles.errors import ConfigError, describe

VARIABLE = "BONSAI_IMPORTS"
Policy = Literal["allow", "recipes", "deny"]
"""Allowed import strings: all, only those in recipe files, or none."""


def policy() -> Policy:
    """Return what the environment says; `allow` where it says nothing.

    Raises:
        ConfigError: It says something else.
    """
    said = os.environ.get(VARIABLE) or "allow"
    for known in get_args(Policy):
        if said == known:
            return known  # type: ignore[no-any-return]  # get_args loses the type
    raise ConfigError(describe(f"{VARIABLE} is not usable", given=said, allowed=get_args(Policy), fix=f"export {VARIABLE}=recipes, or unset it"))


def require_import(name: str, *, place: str, in_file: object) -> None:
    """Check that a recipe may name this code; names of a table may always be used.

    Args:
        name: The value, after all overrides.
        place: Place of the value, for the message.
        in_file: Value of the same key in the recipe file, before overrides.

    Raises:
        ConfigError: It is an import string, and `BONSAI_IMPORTS` is `deny`, or is `recipes` and the file says something else.
    """
    if ":" not in name:
        return
    said = policy()
    if said == "deny":
        require_imports(name, place)
    if said == "recipes" and name != in_file:
        raise ConfigError(
            describe(
                f"{place}: an override may not name code here",
                given=f"{name}, {VARIABLE}=recipes",
                allowed=f"what the recipe's own file says: {in_file}",
                fix=f"write it into a recipe file on the machine that runs, or set {VARIABLE}=allow there",
            )
        )


def require_imports(name: str, what: str) -> None:
    """Check that import strings are followed at all.

    Raises:
        ConfigError: `BONSAI_IMPORTS` is `deny`.
    """
    if ":" in name and policy() == "deny":
        raise ConfigError(
            describe(
                f"{what}: import strings are not followed here",
                given=f"{name}, {VARIABLE}=deny",
                allowed="a name of the table: `bonsai list models`, `bonsai list datasets`",
                fix=f"choose one of these, or set {VARIABLE}=recipes or allow on the machine that runs",
            )
        )
