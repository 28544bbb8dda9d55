"""Finds the store of a run, and the folder that relative paths start from.

A Prefect worker runs each run in a temporary folder and deletes that folder afterwards. Nothing here imports Prefect.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bonsai.pipeline.run.loading import DEFAULT_STORE
from bonsai.pipeline.service.local_server import STORE_VARIABLE
from bonsai.pipeline.service.package_server import URL_VARIABLE
from bonsai.profiles.errors import ConfigError, describe


def find_store(environment: Mapping[str, str]) -> Path:
    """Return the store of this run: `BONSAI_STORE`, or ``artifacts`` in the working folder.

    Raises:
        ConfigError: It would lie in a temporary folder without anybody having said so.
    """
    said = environment.get(STORE_VARIABLE)
    store = Path(said or DEFAULT_STORE)
    if not store.is_absolute() and is_scratch(Path.cwd(), environment):
        raise ConfigError(
            describe(
                f"{STORE_VARIABLE} names no folder, and the working folder of this run is a temporary one: its results would be lost",
                given=f"{STORE_VARIABLE}={said or ''} in {Path.cwd()}",
                allowed="an absolute path on the worker's machine",
                fix=f"start the worker with {STORE_VARIABLE}=/data/bonsai, or give the work pool a `working_dir`",
            )
        )
    return store.resolve()


def settle(recipe: str, environment: Mapping[str, str]) -> None:
    """Go to the recipe's folder where the working folder is a temporary one, so that relative files start there.

    Args:
        recipe: Name or path, as the run was given it.
        environment: Environment variables of this process.

    Raises:
        ConfigError: The recipe's own path is relative, and there is no such file.
    """
    here, file = Path.cwd(), Path(recipe)
    if file.suffix not in (".yaml", ".yml") or not is_scratch(here, environment):
        return
    if not file.is_absolute() and not file.is_file():
        raise ConfigError(
            describe(
                "recipe: a relative path leads nowhere on a worker, which runs in a temporary folder",
                given=f"{recipe}, looked for in {here}",
                allowed="an absolute path on the worker's machine, or a recipe that ships",
                fix=f"give the whole path, such as /data/{file.name}, or give the work pool a `working_dir`",
            )
        )
    if file.is_absolute() and file.is_file():
        os.chdir(file.parent)


def is_scratch(folder: Path, environment: Mapping[str, str]) -> bool:
    """Return whether a working folder is one that a worker made for this run alone; `bonsai serve` runs where it was started."""
    return not environment.get(URL_VARIABLE) and folder.resolve().is_relative_to(Path(tempfile.gettempdir()).resolve())
