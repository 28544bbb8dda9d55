"""`bonsai import`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.completion import complete_profiles


def import_config(
    file: Annotated[Path, typer.Argument(help="pruning_config.json of PruningAwareTraining.", metavar="FILE")],
    data: Annotated[Path, typer.Option("--data", help="Folder of images: a sub-folder per class, or train/, val/, test/ with these.", metavar="DIR")],
    model: Annotated[str, typer.Option("--model", help="The network: package.module:function, or a name of `bonsai list models`.", metavar="NAME")],
    place: Annotated[Path, typer.Option("--out", help="Folder, or recipe file to write.", metavar="DIR|FILE")] = Path("my-recipe.yaml"),
    size: Annotated[int | None, typer.Option("--size", min=8, help="Side of the images in pixels; chosen from them otherwise.", metavar="N")] = None,
    profile: Annotated[
        str, typer.Option("--profile", help="Target that yours is made from.", metavar="NAME|FILE", autocompletion=complete_profiles)
    ] = "local-cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe and a target that are there.")] = False,
) -> None:
    """Write a recipe from a pruning_config.json.

    Layers, method and schedule are taken over; what has no counterpart, such as a rate or MACs, becomes a comment at the recipe's end.

    Example: bonsai import pruning_config.json --data images --model my_model:build
    """
    from pipeline.foreign import read_pruning_config
    from pipeline.scaffold import Ask, scaffold

    written = scaffold(Ask(place, data, model, size, profile, force), read_pruning_config(file))
    for line in written.lines:
        typer.echo(line)
    for path in written.files:
        typer.echo(f"wrote {path}")
    typer.echo(f"next: bonsai run {written.files[0]}")
