"""Latency tables that travel: one file with the tables of a network on a device, where they are from, and a checksum.

    file = find_table("resnet-edge--x86-avx512-vnni")      # a name, or the path of a file
    tables = read_tables(file)                             # by precision
    require_device(tables["int8"], file, device="Cortex-A76 (Raspberry Pi 5)", isa=("asimd", "asimddp"), present=False)

`bonsai characterize` writes such files, and `table_names.py` finds them. The last line is the SHA-256 of everything before it:
`head -n -1 FILE | sha256sum`.
"""

import re
from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from packaging.specifiers import SpecifierSet

from bonsai.profiles.errors import ConfigError, describe
from bonsai.profiles.latency import AGAIN, META, OURS, LatencyTable, Origin, read_table_text
from bonsai.profiles.schema import HardwareProfile, Precision, Target
from bonsai.profiles.table_names import find_table

SUM = "#sha256 "
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MOST_BY = 100
PLAIN = re.compile(r"[^\x00-\x1f\x7f<>\[\]|`*\\]{1,300}")
"""Pattern of what a model card and a page can show as it is."""
ELSEWHERE = "measured elsewhere"
"""How a table is called that was brought, and what rests on it."""


class Brought(NamedTuple):
    """A table that a profile brings, and the file that it is from."""

    file: Path
    table: LatencyTable


def require_labels(name: str | None, by: str) -> None:
    """Refuse a name of a file, or of who measures, that `read_tables` or `find_table` would not take; either may be left out.

    Raises:
        ConfigError: One of them cannot be used.
    """
    if name is not None and not NAME.fullmatch(name):
        allowed = "letters, digits, dots, hyphens and underscores"
        raise ConfigError(describe("--name: no name of a file of tables", given=name, allowed=allowed, fix="choose another name"))
    if by and (len(by) > MOST_BY or not PLAIN.fullmatch(by)):
        raise ConfigError(describe("--by: cannot be shown as it is", given=by, allowed=f"at most {MOST_BY} characters without markup", fix="shorten it"))


def write_tables(file: Path, tables: Iterable[LatencyTable]) -> None:
    """Write tables of one network on one device, one per precision, into a file that can be shared; an older file is replaced at once."""
    text = "".join(table.to_text() for table in tables)
    part = file.with_suffix(".part")
    part.write_text(f"{text}{SUM}{sha256(text.encode()).hexdigest()}\n", encoding="utf-8", newline="")
    part.replace(file)


def read_tables(file: Path) -> dict[Precision, LatencyTable]:
    """Return the tables of a shared file by precision.

    Raises:
        ConfigError: The file cannot be read, is not as it was written, or holds no measured tables.
    """
    text, mark, told = read_table_text(file).rpartition(SUM)
    if not mark:
        raise ConfigError(describe(f"{file}: no whole file of latency tables", given="no checksum in its last line", allowed=OURS, fix=AGAIN))
    found = sha256(text.encode()).hexdigest()
    if told.strip() != found:
        raise ConfigError(
            describe(
                f"{file}: a damaged file of latency tables",
                given=f"a content of sha256 {found}",
                allowed=f"sha256 {told.strip()}, as its last line says",
                fix=AGAIN,
            )
        )
    tables: dict[Precision, LatencyTable] = {}
    for number, section in enumerate(text.split(f"\n{META}"), 1):
        table = LatencyTable.from_text(section if number == 1 else META + section, f"{file}, table {number}")
        if table.meta.source != "measured" or table.meta.origin is None:
            given = f"table {number} is {table.meta.source}" + ("" if table.meta.origin else ", and does not say on which machine")
            raise ConfigError(describe(f"{file}: not a table that was measured", given=given, allowed=OURS, fix=AGAIN))
        if table.meta.precision in tables:
            raise ConfigError(describe(f"{file}: two tables of one precision", given=table.meta.precision, allowed="one of each", fix=AGAIN))
        if not PLAIN.fullmatch(describe_origin(table)):
            allowed = "at most 300 characters without markup: a report shows them"
            raise ConfigError(describe(f"{file}: what it says of its origin cannot be shown", given=describe_origin(table), allowed=allowed, fix=AGAIN))
        tables[table.meta.precision] = table
    return tables


def tables_of(profile: HardwareProfile) -> dict[Precision, Brought]:
    """Return the tables that a profile brings, by precision.

    Raises:
        ConfigError: One is not there or not as it was written, is of another runtime than the profile's, or two are of one precision.
    """
    found: dict[Precision, Brought] = {}
    for file in map(find_table, profile.tables):
        for precision, table in read_tables(file).items():
            require_runtime(table, file, profile.target)
            if precision in found:
                problem = f"profile {profile.name}: two latency tables at {precision}"
                raise ConfigError(
                    describe(problem, given=f"{found[precision].file}, {file}", allowed="one at each precision", fix="leave one of the files out")
                )
            found[precision] = Brought(file, table)
    return found


def origin_of(table: LatencyTable) -> Origin:
    """Return where a table of `read_tables` is from."""
    assert table.meta.origin is not None
    return table.meta.origin


def describe_origin(table: LatencyTable) -> str:
    """Return in words that a table was measured elsewhere: on which machine, with which runtime, when and by whom."""
    meta, by = table.meta, origin_of(table).by
    return f"{ELSEWHERE}, on {meta.device} with {meta.runtime} {meta.runtime_version}, {meta.date}" + (f", by {by}" if by else "")


def conditions(target: Target) -> dict[str, object]:
    """Return what a table must have been measured under to be a target's."""
    return {"runtime": target.runs_on, "precision": target.precision, "batch": target.batch, "threads": target.threads}


def require_runtime(table: LatencyTable, file: Path, target: Target) -> None:
    """Refuse a table of another runtime, version, batch or number of threads than a target's; its precision is the target's.

    Raises:
        ConfigError: The table is not for this target.
    """
    table.require(conditions(target.at(table.meta.precision)), file)
    if table.meta.runtime_version not in SpecifierSet(target.runtime_version, prereleases=True):
        raise ConfigError(
            describe(
                f"{file}: measured with another version of the runtime",
                given=f"{table.meta.runtime} {table.meta.runtime_version}",
                allowed=target.runtime_version,
                fix="characterise the network again with such a version, or change target.runtime_version",
            )
        )


def _that_matter(isa: Collection[str]) -> set[str]:
    """Return the instruction sets that kernels are chosen by: beside AVX-512-VNNI nobody takes the narrower AVX-VNNI."""
    return set(isa) - ({"avx_vnni"} if "avx512_vnni" in isa else set())


def require_device(table: LatencyTable, file: Path, *, device: str, isa: Collection[str], present: bool) -> None:
    """Refuse a table that was measured on another device.

    Kernels are chosen by the instruction set, which must be the same. The name of a device that is not here is what its profile calls it, so it is
    compared only where the device is here, and tells its own.

    Args:
        table: The table.
        file: Its file.
        device: Name of the target's device.
        isa: Instruction sets of the target's device.
        present: Whether that device is here.

    Raises:
        ConfigError: The table is of another device.
    """
    measured_on, origin = table.meta.device, origin_of(table)
    if _that_matter(origin.isa) != _that_matter(isa):
        raise ConfigError(
            describe(
                f"{file}: measured on a device with other instruction sets",
                given=f"{', '.join(origin.isa) or 'none that is known'} ({measured_on})",
                allowed=f"{', '.join(isa) or 'none'} ({device})",
                fix="take a table of such a device, or correct target.device.isa; a list of tables: `bonsai list tables`",
            )
        )
    if present and measured_on != device:
        raise ConfigError(
            describe(
                f"{file}: measured on another device, and the target's is here",
                given=measured_on,
                allowed=device,
                fix="leave the table out: the device is measured by the run itself",
            )
        )
