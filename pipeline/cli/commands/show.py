"""`bonsai show`."""

from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.options import JsonOption, StoreOption

LABEL = 160
"""Fewest columns to print with. A narrower terminal wraps the lines itself, so that `grep` still finds them whole."""


def show(
    what: Annotated[str, typer.Argument(help="Folder of an artifact or a package, or the beginning of a key.", metavar="ARTIFACT|PACKAGE")],
    store: StoreOption = Path("artifacts"),
    as_json: JsonOption = False,
) -> None:
    """Show what an artifact or a package was made of.

    Each line has stage and key, the seconds that the stage took, and its main figures.

    Example: bonsai show artifacts/packages/resnet-edge--local-cpu
    """
    from rich.console import Console

    from bonsai.pipeline.cli.lineage_tree import draw, read_family

    family = read_family(what, store)
    if as_json:
        typer.echo(family.model_dump_json(indent=2))
    else:
        Console(highlight=False, markup=False, width=max(Console().width, LABEL)).print(draw(family))
