"""Names of the files of latency tables. A name is looked up in the folder that `BONSAI_TABLES` names, and then in `profiles/tables`."""

import os
from pathlib import Path

from bonsai.profiles.errors import ConfigError, describe, suggestion

SHIPPED = Path(__file__).parent / "tables"
VARIABLE = "BONSAI_TABLES"
SUFFIX = ".csv"


def list_tables() -> dict[str, Path]:
    """Return the files of tables by name: those of the user's own folder, then the shipped ones.

    Raises:
        ConfigError: `BONSAI_TABLES` names no folder.
    """
    found: dict[str, Path] = {}
    for folder in _folders():
        for file in sorted(folder.glob(f"*{SUFFIX}")):
            found.setdefault(file.stem, file)
    return found


def find_table(name_or_path: str) -> Path:
    """Return the file of a name of `list_tables()`, or of a path that ends in ``.csv``.

    Raises:
        ConfigError: There is no table of this name.
    """
    if name_or_path.endswith(SUFFIX):
        return Path(name_or_path)
    tables = list_tables()
    if name_or_path not in tables:
        raise ConfigError(
            describe(
                f"no latency table of this name{suggestion(name_or_path, tables)}",
                given=name_or_path,
                allowed=tables or f"no name: there is no table in {' or '.join(map(str, _folders()))}",
                fix=f"use the path of a {SUFFIX} file, or let {VARIABLE} name the folder that it lies in; `bonsai list tables` describes those that are found",
            )
        )
    return tables[name_or_path]


def _folders() -> list[Path]:
    own = os.environ.get(VARIABLE)
    if not own:
        return [SHIPPED]
    if not Path(own).is_dir():
        raise ConfigError(describe(f"{VARIABLE} names no folder", given=own, allowed="a folder of latency tables", fix="correct it, or unset it"))
    return [Path(own), SHIPPED]
