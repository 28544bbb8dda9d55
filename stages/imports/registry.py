"""Tables of names: `name -> "package.module:attribute"`, imported only when asked for."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from bonsai.profiles.errors import ConfigError, describe, suggestion
from bonsai.stages.imports.import_policy import require_imports
from bonsai.stages.imports.user_code import FAILURES, place_of
from bonsai.stages.memory import blame_memory

CODE_PATH = "BONSAI_CODE_PATH"
"""Environment variable that tells child processes where the user's code is. Unlike PYTHONPATH, it does not hide installed modules."""
sys.path += [folder for folder in os.environ.get(CODE_PATH, "").split(os.pathsep) if folder and folder not in sys.path]


def code_digest(name: str) -> str:
    """Return the sha256 of the file behind an import string, or an empty text for a name of a table.

    So a factory of the user's own is another input once its file changes; what that file imports is not followed.
    """
    if ":" not in name:
        return ""
    spec = _spec(name.partition(":")[0])
    return sha256(Path(spec.origin).read_bytes()).hexdigest() if spec and spec.origin else ""


def make_importable(folder: Path, *names: str) -> None:
    """Let import strings find modules that lie in a folder, here and in child processes: behind all that is installed, so that nothing can be hidden.

    Args:
        folder: Folder of the user's code.
        names: Names that will be imported: names in tables, and import strings.

    Raises:
        ConfigError: A module of the folder cannot be meant, because another one of its name comes first.
    """
    place = folder.resolve()
    if str(place) not in sys.path:
        sys.path.append(str(place))
        os.environ[CODE_PATH] = os.pathsep.join(filter(None, [os.environ.get(CODE_PATH), str(place)]))
    for name in names:
        top = name.partition(":")[0].partition(".")[0]
        here = [file for file in (place / f"{top}.py", place / top / "__init__.py") if file.is_file()]
        if ":" not in name or not here:
            continue
        importlib.invalidate_caches()
        spec = importlib.util.find_spec(top)
        if spec is None or spec.origin is None or Path(spec.origin).resolve() != here[0]:
            found = spec.origin if spec is not None else None
            raise ConfigError(
                describe(
                    f"{name}: the module of this name in the recipe's folder is hidden by another one",
                    given=f"{here[0]}, hidden by {found or 'a built-in module'}",
                    allowed="a module name that is not installed and not loaded already",
                    fix="rename the module, for instance my_" + top,
                )
            )


def resolve(name: str, table: Mapping[str, str], what: str, *, also: Sequence[str] = ()) -> Any:
    """Return the attribute that a table name, or an import string itself, stands for.

    Args:
        name: A name of the table, or an import string.
        table: Import strings by name.
        what: What is named, for messages.
        also: Other forms of names that are allowed, for messages.

    Raises:
        ConfigError: The name is not in the table, or the import string leads nowhere or may not be followed.
    """
    if name not in table:
        require_imports(name, what)
    target = table.get(name, name)
    if ":" not in target:
        raise ConfigError(
            describe(
                f"no {what} of this name{suggestion(name, table)}",
                given=name,
                allowed=[*table, *also, "package.module:attribute"],
                fix=f"use one of these names; `bonsai list {what}s` shows them",
            )
        )
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except FAILURES as error:  # the module is the user's: whatever its code raises is told with its line
        blame_memory(error)
        raise ConfigError(
            describe(
                f"{what} {name!r} cannot be imported",
                given=f"{target} ({type(error).__name__}: {error}{_place(error)})",
                allowed="package.module:attribute of an installed package, or of a file in the recipe's folder or the working directory",
                fix="check the spelling, and that `python -c 'import " + module_name + "'` works there",
            )
        ) from error


def _place(error: BaseException) -> str:
    """Return the last line of the user's code that an error went through."""
    place = place_of(error)
    return f", {place.file}:{place.line}" if place else ""


def _spec(module_name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module_name)
    except FAILURES as error:  # the package around it is not there, or is broken: `resolve` says so
        blame_memory(error)
        return None
