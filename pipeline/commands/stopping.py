"""How a command that trains ends when its user stops it."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def resumable() -> Iterator[None]:
    """End Ctrl-C in a message and code 130: what is finished is kept."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the last finished epoch", err=True)
        raise typer.Exit(130) from None
