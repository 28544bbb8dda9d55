"""Tables of names: `name -> "package.module:attribute"`, imported only when asked for."""

import importlib
import importlib.util
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from profiles.errors import ConfigError, describe, suggestion


def code_digest(name: str) -> str:
    """Return the sha256 of the file behind an import string, or an empty text for a name of a table.

    So a factory of the user's own is another input once its file changes; what that file imports is not followed.
    """
    if ":" not in name:
        return ""
    spec = importlib.util.find_spec(name.partition(":")[0])
    return sha256(Path(spec.origin).read_bytes()).hexdigest() if spec and spec.origin else ""


def resolve(name: str, table: Mapping[str, str], what: str) -> Any:
    """Return the attribute that a table name, or an import string itself, stands for.

    Raises:
        ConfigError: The name is not in the table, or the import string leads nowhere.
    """
    target = table.get(name, name)
    if ":" not in target:
        raise ConfigError(
            describe(
                f"no {what} of this name{suggestion(name, table)}",
                given=name,
                allowed=[*table, "package.module:attribute"],
                fix=f"use one of these names; `bonsai list {what}s` shows them",
            )
        )
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            describe(
                f"{what} {name!r} cannot be imported",
                given=f"{target} ({error})",
                allowed="an importable package.module:attribute",
                fix="check the spelling and that the package is installed",
            )
        ) from error
