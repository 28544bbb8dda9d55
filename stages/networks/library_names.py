"""Names of another library's networks: a wrong one is told with those that are near it."""

import difflib
from collections.abc import Collection

from bonsai.profiles.errors import ConfigError, describe

SHOWN = 5


def require_known(library: str, name: str, *, known: bool, names: Collection[str]) -> None:
    """Check that a library has a network of a name.

    Args:
        library: ``timm`` or ``torchvision``.
        name: The name, without the library.
        known: Whether the library has it.
        names: The library's names.

    Raises:
        ConfigError: It has none; the nearest names are told.
    """
    if known:
        return
    near = difflib.get_close_matches(name, names, n=SHOWN, cutoff=0.5)
    raise ConfigError(
        describe(
            f"{library} has no network of this name",
            given=f"{library}/{name}",
            allowed=f"one of {len(names)} names" + (f", such as {', '.join(f'{library}/{found}' for found in near)}" if near else ""),
            fix=f"correct the name; `python -c 'import {library}; print({library}{'' if library == 'timm' else '.models'}.list_models())'` has all of them",
        )
    )
