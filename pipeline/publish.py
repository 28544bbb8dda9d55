"""Putting a finished package under its name, and laying it out for a server."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stages.delivery.contents import FOLDER, read_intact
from stages.delivery.triton import require_servable, write_model
from stages.locks import hold

if TYPE_CHECKING:
    from stages.package import Package


def publish(finished: "Package", packages: Path) -> Path:
    """Copy a package to ``packages/<name>``, replacing an older one, and return the folder."""
    return replace_folder(packages / finished.name, lambda fresh: shutil.copytree(finished.folder / FOLDER, fresh, dirs_exist_ok=True))


def lay_out_triton(package: Path, repository: Path) -> Path:
    """Write a package as ``repository/<name>``, a model of a Triton model repository, replacing an older one, and return the folder.

    Raises:
        VerificationError: The package is not as it was made.
        ConfigError: Triton does not run engines of its runtime.
    """
    manifest = read_intact(package)
    require_servable(manifest.engine.runtime)
    return replace_folder(repository / manifest.name, lambda fresh: write_model(package, manifest, fresh))


LAYOUTS = {"triton": lay_out_triton}
"""By name, what lays out the package of the first folder below the second one."""


def replace_folder(final: Path, write: Callable[[Path], object]) -> Path:
    """Fill a folder beside its place and move it there by renames: a reader never sees half of it.

    Args:
        final: Its place; the folder above it exists.
        write: Fills the folder that it is given.
    """
    fresh, old = (final.with_name(f".{state}-{final.name}") for state in ("new", "old"))
    with hold(final.with_name(f".lock-{final.name}"), wait=True):
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir()
        write(fresh)
        if final.exists():
            os.replace(final, old)
        os.replace(fresh, final)
        shutil.rmtree(old, ignore_errors=True)
    return final
