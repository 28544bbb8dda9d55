"""`bonsai verify` and `bonsai layout`: what is done with finished packages."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.options import Layout


def verify(
    package: Annotated[Path, typer.Argument(help="Folder of a package.", metavar="PACKAGE")],
    require_run: Annotated[bool, typer.Option("--require-run", help="Fail with code 5 where the engine's device is not here, so that it cannot run.")] = False,
) -> None:
    """Check a package on this machine.

    In this order: files, machine, runtime, and the engine against its golden results.

    Example: bonsai verify artifacts/packages/resnet-edge--local-cpu
    """
    from stages.delivery.verification import verify_package

    for line in verify_package(package, require_run=require_run):
        typer.echo(line)


def lay_out(
    layout: Annotated[Layout, typer.Argument(help="For which server.")],
    packages: Annotated[list[Path], typer.Argument(help="Folders of packages.", metavar="PACKAGE")],
    out: Annotated[Path, typer.Option("--out", help="The model repository.", metavar="DIR")] = Path("models"),
) -> None:
    """Lay packages out for a server.

    They become models of a Triton model repository, without running anything again.

    Example: bonsai layout triton artifacts/packages/resnet-edge--local-cpu
             tritonserver --model-repository models
    """
    from pipeline.publish import LAYOUTS

    for package in packages:
        typer.echo(LAYOUTS[layout.value](package, out))
