"""Putting a finished package under its name, and laying it out for what runs it elsewhere."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.schema import Target
from bonsai.stages.delivery import minimal_build, triton
from bonsai.stages.delivery.contents import FOLDER, PackageManifest, read_intact
from bonsai.stages.delivery.package_record import Package
from bonsai.stages.store.locks import hold


def publish(finished: Package, packages: Path) -> Path:
    """Copy a package to ``packages/<name>``, replacing an older one, and return the folder."""
    return replace_folder(packages / finished.name, lambda fresh: shutil.copytree(finished.folder / FOLDER, fresh, dirs_exist_ok=True))


class Layout(NamedTuple):
    """A form of a package for what runs it elsewhere.

    Attributes:
        require: Raises a ConfigError for a target whose engines have no such form.
        write: Writes an intact package's files, given its folder, its manifest and an empty folder.
    """

    require: Callable[[Target], None]
    write: Callable[[Path, PackageManifest, Path], None]


LAYOUTS = {
    "triton": Layout(triton.require_servable, triton.write_model),
    "ort": Layout(minimal_build.require_portable_kernels, minimal_build.write_minimal),
}


def lay_out(layout: str, package: Path, folder: Path) -> Path:
    """Write a package as ``folder/<name>`` in a layout, replacing an older one, and return that folder.

    Raises:
        VerificationError: The package is not as it was made.
        ConfigError: Engines of its target have no such layout, or it would be written into the package or in its place.
    """
    manifest, form = read_intact(package), LAYOUTS[layout]
    form.require(manifest.profile.target)
    final = folder / manifest.name
    if final.resolve().is_relative_to(package.resolve()):
        fix = "choose another folder: --out DIR"
        raise ConfigError(describe("the layout would be written into the package, or in its place", given=folder, allowed="any other folder", fix=fix))
    return replace_folder(final, lambda fresh: form.write(package, manifest, fresh))


def replace_folder(final: Path, write: Callable[[Path], object]) -> Path:
    """Fill a folder beside its place and move it there by renames: a reader never sees half of it, and a process that is killed loses neither.

    Args:
        final: Its place; the folder above it exists.
        write: Fills the folder that it is given.
    """
    fresh, old = (final.with_name(f".{state}-{final.name}") for state in ("new", "old"))
    with hold(final.with_name(f".lock-{final.name}"), wait=True):
        if old.exists() and not final.exists():  # a process was killed between the two renames
            os.replace(old, final)
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            fresh.mkdir()
            write(fresh)
            if final.exists():
                os.replace(final, old)
            os.replace(fresh, final)
        except BaseException:  # a full disk, Ctrl-C: what was there stays there
            if old.exists() and not final.exists():
                os.replace(old, final)
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)
    return final
