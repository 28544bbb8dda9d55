"""How a command ends when its user, or the system, stops it."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import typer

_received: list[int] = []
"""Signals that asked this command to end. Errors after that are only a consequence."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, with another code."""


@contextmanager
def noticing_signals() -> Iterator[None]:
    """Raise where SIGINT or SIGTERM arrives while the block runs, so that it leaves nothing half-made, and remember it."""
    _received.clear()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] is signal.default_int_handler:  # in the background of a script it is ignored
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_code(error: BaseException) -> int | None:
    """Return the exit code, 128 and the signal's number, where an error ends a command because it was asked to; else None."""
    if _received:
        return 128 + _received[0]
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


@contextmanager
def resumable() -> Iterator[None]:
    """End Ctrl-C in a message and code 130, SIGTERM in 143: what is finished is kept."""
    try:
        yield
    except BaseException as error:
        code = stop_code(error)
        if code is None:
            raise
        tell("stopped; the same command goes on from the last finished epoch")
        raise typer.Exit(code) from None


def tell(message: str) -> None:
    """Write a line to standard error, if anybody can read it."""
    with suppress(OSError, ValueError):  # its reader has gone, its disk is full, or it is closed
        typer.echo(message, err=True)
        if sys.stderr is not None:
            sys.stderr.flush()


def _stop(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
