"""Options that several commands share, and how `--set` is read."""

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.completion import complete_profiles, complete_recipes
from bonsai.profiles.errors import ConfigError, describe

LEAST_SIDE = 8
StoreOption = Annotated[Path, typer.Option("--store", help="Folder of the artifacts.", metavar="DIR")]
RecipeArgument = Annotated[str, typer.Argument(help="Name of a shipped recipe, or path of a recipe file.", metavar="RECIPE", autocompletion=complete_recipes)]
ProfilesOption = Annotated[
    list[str] | None,
    typer.Option("--profile", help="Target, by name or file; repeat it for several; default: RECIPE's.", metavar="NAME|FILE", autocompletion=complete_profiles),
]
SettingsOption = Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key, or `profile.` a profile key.", metavar="A.B=C")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Folder of the packages; default: STORE/packages.", metavar="DIR")]
CiOption = Annotated[bool, typer.Option("--ci", help="Report for a CI system: JUnit XML, a Markdown summary, GitHub annotations, no colours.")]
CiDirOption = Annotated[Path | None, typer.Option("--ci-dir", help="Folder of what --ci writes; default: STORE/ci.", metavar="DIR")]
DataOption = Annotated[
    Path,
    typer.Option("--data", help="Folder of images: a sub-folder per class, or images/ beside masks/; or train/, val/, test/ with these.", metavar="DIR"),
]
SizeOption = Annotated[str | None, typer.Option("--size", help="Side of the images in pixels; chosen from them otherwise.", metavar="N|HEIGHTxWIDTH")]
ParentOption = Annotated[str, typer.Option("--profile", help="Target that yours is made from.", metavar="NAME|FILE", autocompletion=complete_profiles)]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a recipe and a target that are there.")]
TrackerOption = Annotated[
    str | None, typer.Option("--tracker", help="Send figures there too; default: what BONSAI_TRACKER says.", metavar="tensorboard:DIR|mlflow:URI")
]
AllowUndecidedOption = Annotated[bool, typer.Option("--allow-undecided", help="End with code 0 where the latency is too close to its limit to tell.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


class Layout(str, Enum):
    """How `bonsai run --layout` and `bonsai layout` can lay out a package."""

    triton = "triton"
    ort = "ort"


def ci_folder(ci: bool, folder: Path | None, store: Path) -> Path | None:
    """Return where `--ci` and `--ci-dir` want the reports; None for nowhere.

    Raises:
        ConfigError: `--ci-dir` alone.
    """
    if folder and not ci:
        raise ConfigError(describe("--ci-dir without --ci", given=folder, allowed="both, or neither", fix="add --ci"))
    return (folder or store / "ci") if ci else None


def read_size(text: str | None) -> int | tuple[int, int] | None:
    """Return what `--size` says: a side, or (height, width), in pixels.

    Raises:
        ConfigError: It is no size.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    sides = [int(side) for side in found.groups() if side] if found else []
    if not sides or min(sides) < LEAST_SIDE:
        allowed = f"a side in pixels such as 64, or HEIGHTxWIDTH such as 48x64, each at least {LEAST_SIDE}"
        raise ConfigError(describe("--size: no size of images", given=text, allowed=allowed, fix="correct it, or leave it out"))
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def read_settings(settings: list[str] | None) -> dict[str, str]:
    """Return what `--set A.B=C` gave, by dotted key.

    Raises:
        ConfigError: One is no assignment, or a key is given twice.
    """
    overrides: dict[str, str] = {}
    for text in settings or []:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigError(describe("--set needs a key and a value", given=text, allowed="A.B=C", fix="for example --set quantize.epochs=2"))
        if key in overrides:
            raise ConfigError(describe(f"--set {key}: given twice", given=f"{overrides[key]}, then {value}", allowed="each key once", fix="drop one of them"))
        overrides[key] = value
    return overrides
