"""`bonsai init`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.completion import complete_profiles


def init(
    data: Annotated[Path, typer.Option("--data", help="Folder of images: a sub-folder per class, or train/, val/, test/ with these.", metavar="DIR")],
    place: Annotated[Path, typer.Argument(help="Folder, or recipe file to write.", metavar="[DIR|FILE]")] = Path("my-recipe.yaml"),
    model: Annotated[str | None, typer.Option("--model", help="package.module:function, or a name of `bonsai list models`.", metavar="NAME")] = None,
    size: Annotated[int | None, typer.Option("--size", min=8, help="Side of the images in pixels; chosen from them otherwise.", metavar="N")] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="Target that yours is made from.", metavar="NAME|FILE", autocompletion=complete_profiles)
    ] = "local-cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe and a target that are there.")] = False,
) -> None:
    """Write a recipe for your own model and images.

    Beside the recipe a target is written, and without --model a small network to start from: my_model.py, which is never replaced.
    Images, network and what can be pruned in it are checked first.

    Example: bonsai init --data images --model my_model:build
    """
    from pipeline.scaffold import Ask, scaffold

    written = scaffold(Ask(place, data, model, size, profile, force))
    for line in written.lines:
        typer.echo(line)
    for file in written.files:
        typer.echo(f"wrote {file}")
    typer.echo(f"next: bonsai run {written.files[0]}")
