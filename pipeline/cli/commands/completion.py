"""Names that the shell completes; nothing heavy is imported."""

from collections.abc import Iterable
from pathlib import Path

from bonsai.profiles.table_names import SUFFIX, list_tables

BONSAI = Path(__file__).parents[3]


def complete_recipes(incomplete: str) -> list[str]:
    """Return shipped recipes and YAML files that begin like this."""
    return _complete(incomplete, BONSAI / "pipeline" / "recipes")


def complete_profiles(incomplete: str) -> list[str]:
    """Return shipped profiles and YAML files that begin like this."""
    return _complete(incomplete, BONSAI / "profiles")


def complete_tables(incomplete: str) -> list[str]:
    """Return names of latency tables, and CSV files, that begin like this."""
    return [*(name for name in list_tables() if name.startswith(incomplete)), *_files(incomplete, (SUFFIX,))]


def _complete(incomplete: str, shipped: Path) -> list[str]:
    names = sorted(file.stem for file in shipped.glob("*.yaml"))
    return [*(name for name in names if name.startswith(incomplete)), *_files(incomplete, (".yaml", ".yml"))]


def _files(incomplete: str, suffixes: tuple[str, ...]) -> Iterable[str]:
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    shown = "" if str(folder) == "." and not incomplete.startswith("./") else f"{incomplete[: incomplete.rfind('/') + 1]}"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        text = shown + path.name + ("/" if path.is_dir() else "")
        if text.startswith(incomplete) and not path.name.startswith(".") and (path.is_dir() or path.suffix in suffixes):
            yield text
