"""A wheel of the Bonsai that runs here, made from its own files: whether it was installed from a wheel or from a source tree, and without build tools."""

import base64
import csv
import hashlib
import importlib.util
import io
import zipfile
from importlib import metadata
from pathlib import Path

from bonsai.stages.backends.remote.build_mark import DISTRIBUTION
from bonsai.stages.imports.contents import walk

PACKAGE = "bonsai"
TAG = "py3-none-any"
WHEEL = f"Wheel-Version: 1.0\nGenerator: bonsai\nRoot-Is-Purelib: true\nTag: {TAG}\n"
COPIED = ("METADATA", "entry_points.txt")
"""Files of the installed distribution that a wheel has too."""


def write_wheel(folder: Path) -> Path:
    """Write a wheel of Bonsai as it is now, and return it."""
    distribution = metadata.distribution(DISTRIBUTION)
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations, "Bonsai runs"
    root = Path(spec.submodule_search_locations[0])
    stem = f"{DISTRIBUTION.replace('-', '_')}-{distribution.version}"
    files = {f"{PACKAGE}/{file.relative_to(root).as_posix()}": file.read_bytes() for file in walk(root, hidden=False) if file.suffix != ".pyc"}
    info = f"{stem}.dist-info"
    files |= {f"{info}/{name}": (distribution.read_text(name) or "").encode() for name in COPIED}
    files[f"{info}/WHEEL"] = WHEEL.encode()
    wheel = folder / f"{stem}-{TAG}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/RECORD", _record(files, f"{info}/RECORD"))
    return wheel


def _record(files: dict[str, bytes], own: str) -> str:
    """Return the list of files with hashes and sizes that installers check."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.writerow([name, f"sha256={digest}", len(content)])
    lines.writerow([own, "", ""])
    return text.getvalue()
