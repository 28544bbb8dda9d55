"""`bonsai import`."""

from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.options import DataOption, ForceOption, ParentOption, SizeOption, read_size


def import_config(
    file: Annotated[Path, typer.Argument(help="pruning_config.json of PruningAwareTraining.", metavar="FILE")],
    data: DataOption,
    model: Annotated[str, typer.Option("--model", help="The network: package.module:function, or a name of `bonsai list models`.", metavar="NAME")],
    place: Annotated[Path, typer.Option("--out", help="Folder, or recipe file to write.", metavar="DIR|FILE")] = Path("my-recipe.yaml"),
    size: SizeOption = None,
    profile: ParentOption = "local-cpu",
    force: ForceOption = False,
) -> None:
    """Write a recipe from a pruning_config.json.

    Layers, method and schedule are taken over; what has no counterpart, such as a rate or MACs, becomes a comment at the recipe's end.

    Example: bonsai import pruning_config.json --data images --model my_model:build
    """
    from bonsai.pipeline.starting.foreign import read_pruning_config
    from bonsai.pipeline.starting.scaffold import Ask, scaffold
    from bonsai.pipeline.tables import show_written

    show_written(scaffold(Ask(place, data, model, read_size(size), profile, force), read_pruning_config(file)))
