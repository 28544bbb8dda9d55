"""Files that a recipe declares under `model.files` and `data.files`: what the user's own code reads beside its arguments.

Their contents are part of the input; where the recipe's folder lies is not. An option that repeats an entry reaches the user's code as a path that
leads there, wherever the run was started.
"""

import glob
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.imports.contents import digest_of, files_at

FOLDERS = "BONSAI_FILE_FOLDERS"
"""Environment variable that tells this process and its children in which folder declared files of a content lie."""
Scalar = int | float | str | bool
Option = Scalar | tuple[Scalar, ...]


def find_files(files: Sequence[str], folder: Path, key: str) -> dict[str, Path]:
    """Return every declared file by the number of its entry, what its pattern matched, and its path in the folder that was matched.

    Args:
        files: Files, folders or patterns, as they stand in the recipe.
        folder: Folder that relative paths start from.
        key: Key in the recipe, for messages.

    Raises:
        ConfigError: An entry leads to no file, or to what cannot be read.
    """
    found: dict[str, Path] = {}
    for number, entry in enumerate(files):
        here = {f"{number}/{match}/{name}": file for match, place in _matches(entry, folder).items() for name, file in files_at(place, key).items()}
        if not here:
            raise ConfigError(
                describe(
                    f"{key}: no such file",
                    given=f"{entry}, looked for in {folder.resolve()}",
                    allowed="files, folders or patterns such as weights/*.pth, from the recipe's folder",
                    fix="check the path, or remove the entry",
                )
            )
        found |= here
    return found


def content_of(files: Sequence[str], folder: Path, key: str) -> str:
    """Return the digest of what declared files hold; an empty text where none are declared.

    Raises:
        ConfigError: As for `find_files`.
    """
    return digest_of(find_files(files, folder, key), key) if files else ""


def announce(content: str, folder: Path) -> None:
    """Let `in_place` and `folder_of` know, here and in child processes, where declared files of this content lie."""
    if content:
        os.environ[FOLDERS] = json.dumps({**_announced(), content: str(folder.resolve())})


def place_of(content: str) -> Path | None:
    """Return the announced place of a content; None where none was announced."""
    place = _announced().get(content)
    return None if place is None else Path(place)


def folder_of(files: Sequence[str], content: str, key: str) -> Path:
    """Return the folder that declared files start at: the announced one, or else the working directory.

    Raises:
        ConfigError: It was not announced, and the files in the working directory are not there or hold something else.
    """
    announced = _announced().get(content)
    if announced is not None or not content:
        return Path(announced or ".")
    here = Path.cwd()
    if content_of(files, here, key) != content:
        raise ConfigError(
            describe(
                f"{key}: these files have changed since",
                given=f"{', '.join(files)}, looked for in {here}",
                allowed="files of the same contents",
                fix="work in the recipe's folder, with the files as they were",
            )
        )
    return here


def in_place(options: Mapping[str, Option], files: Sequence[str], content: str, key: str) -> dict[str, Option]:
    """Return options in which those that repeat an entry of `files` lead to the recipe's folder.

    Raises:
        ConfigError: As for `folder_of`.
    """
    if not any(value in files for value in options.values()):
        return dict(options)
    folder = folder_of(files, content, key)
    return {name: str(folder / str(value)) if value in files else value for name, value in options.items()}


def places_of(files: Sequence[str], content: str, key: str) -> list[Path]:
    """Return the files and folders that the entries lead to.

    Raises:
        ConfigError: As for `folder_of`.
    """
    folder = folder_of(files, content, key) if files else Path()
    return [place for entry in files for place in _matches(entry, folder).values()]


def without_places(options: Mapping[str, Option], files: Sequence[str]) -> dict[str, Option]:
    """Return options in which those that repeat an entry of `files` say which one alone: its contents stand for it."""
    return {name: f"files[{files.index(str(value))}]" if value in files else value for name, value in options.items()}


def _matches(entry: str, folder: Path) -> dict[str, Path]:
    """Return what an entry leads to: itself under an empty name, or what its pattern matches by the path from the folder."""
    if (folder / entry).exists():
        return {"": folder / entry}
    if sys.version_info < (3, 11):
        fix = "name the files one by one, or use Python 3.11"
        raise ConfigError(describe("a pattern of files needs Python 3.11 or later", given=entry, allowed="names of files and folders", fix=fix))
    found = glob.glob(entry, root_dir=folder, recursive=True, include_hidden=True)  # noqa: PTH207  # Path.glob takes no absolute pattern
    return {match: folder / match for match in sorted(found)}


def _announced() -> dict[str, str]:
    known: dict[str, str] = json.loads(os.environ.get(FOLDERS) or "{}")
    return known
