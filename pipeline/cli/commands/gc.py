"""`bonsai gc`."""

from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.options import StoreOption


def gc(
    store: StoreOption = Path("artifacts"),
    delete: Annotated[bool, typer.Option("--delete", help="Free it; otherwise it is only shown.")] = False,
    keep_days: Annotated[float, typer.Option("--keep-days", min=0, help="Keep what is younger, needed or not.", metavar="N")] = 7,
    everything: Annotated[bool, typer.Option("--all-unreferenced", help="However young: --keep-days 0.")] = False,
    packages: Annotated[list[Path] | None, typer.Option("--package", help="Package elsewhere whose artifacts stay too; repeat it.", metavar="DIR")] = None,
) -> None:
    """Free artifacts that no package needs.

    Without --delete it is only shown what would be freed. The packages in STORE/packages keep all that they were made from, so that
    `bonsai run` still finds it; the optimizer's moments of the trunk go, and are trained again where they are needed. Listed too is what was set
    aside as damaged, and what was never finished. Nothing is freed while a run works.

    Example: bonsai gc
             bonsai gc --delete --keep-days 30
    """
    from bonsai.stages.store.garbage import free, take_inventory

    days = 0.0 if everything else keep_days
    found = (free if delete else take_inventory)(store, keep_days=days, packages=packages or ())
    for item in found.waste:
        typer.echo(f"{item.path:40}{item.size / 1e6:10.1f} MB{item.age:8.1f} days")
    verb = "freed" if delete else "could be freed"
    typer.echo(f"{found.size / 1e6:.1f} MB in {len(found.waste)} folders {verb}; {found.kept_size / 1e6:.1f} MB in {found.kept} artifacts stay")
    typer.echo(f"packages: {', '.join(found.packages) or 'none'}")
    if found.waste and not delete:
        typer.echo("nothing was deleted; --delete does it")
