"""Putting a finished package under its name."""

import os
import shutil
from pathlib import Path

from stages.locks import hold
from stages.package import FOLDER, Package


def publish(finished: Package, packages: Path) -> Path:
    """Copy a package to ``packages/<name>``, replacing an older one, and return the folder.

    The copy is made beside its place and moved there by renames: a reader never sees half a package.
    """
    final, fresh, old = (packages / name for name in (finished.name, f".new-{finished.name}", f".old-{finished.name}"))
    with hold(packages / f".lock-{finished.name}", wait=True):
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(finished.folder / FOLDER, fresh)
        if final.exists():
            os.replace(final, old)
        os.replace(fresh, final)
        shutil.rmtree(old, ignore_errors=True)
    return final
