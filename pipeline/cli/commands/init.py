"""`bonsai init`."""

from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.options import DataOption, ForceOption, ParentOption, SizeOption, read_size


def init(
    data: DataOption,
    place: Annotated[Path, typer.Argument(help="Folder, or recipe file to write.", metavar="[DIR|FILE]")] = Path("my-recipe.yaml"),
    model: Annotated[str | None, typer.Option("--model", help="package.module:function, or a name of `bonsai list models`.", metavar="NAME")] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Trained weights to fine-tune: .safetensors, .pth or .pt.", metavar="FILE|pretrained")
    ] = None,
    masks: Annotated[Path | None, typer.Option("--masks", help="Folder of masks, if --data is that of their images alone.", metavar="DIR")] = None,
    size: SizeOption = None,
    profile: ParentOption = "local-cpu",
    force: ForceOption = False,
) -> None:
    """Write a recipe for your own model and images.

    Beside the recipe a target is written, and without --model a small network to start from: my_model.py, which is never replaced.
    Images with masks make a recipe for a segmentation, and a table of the pairs: masks.csv, in the folder that holds both.
    Images, network and what can be pruned in it are checked first.
    With --weights the recipe is a short fine-tuning of a network that is trained already, which is also what its accuracy is compared with.

    Example: bonsai init --data images --model my_model:build
             bonsai init --data images --model my_model:build --weights best.pth --size 64
             bonsai init --data photos --masks masks --size 48x64
    """
    from bonsai.pipeline.starting.scaffold import Ask, scaffold
    from bonsai.pipeline.tables import show_written

    show_written(scaffold(Ask(place, data, model, read_size(size), profile, force, weights, masks)))
