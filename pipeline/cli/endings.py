"""Messages for errors of the machine, not of Bonsai: a full disk, no memory, a closed output."""

import errno
import os
import sys

from bonsai.profiles.errors import describe
from bonsai.stages.interpreter import VARIABLE
from bonsai.stages.memory import lacks_memory

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota on the disk is used up",
    errno.EFBIG: "a file would become larger than this process may write",
}
GOES_ON = "the same command goes on from what is finished"


def message_of(error: Exception) -> str | None:
    """Return the one message that an error of the machine ends in, or None for an error that is a fault of Bonsai's.

    Args:
        error: That nothing else has handled.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        fix = f"free space (`bonsai gc --delete` frees what no package needs); {GOES_ON}"
        return describe(FULL[error.errno], given=error, allowed="room for what the stages write", fix=fix)
    if lacks_memory(error):
        words = next(iter(str(error).splitlines()), "") or type(error).__name__
        fix = f"end other programs, or lower training.batch_size; {GOES_ON}"
        return describe("there is not enough memory", given=words, allowed="more free memory", fix=fix)
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        fix = f"set {VARIABLE} to the command that starts it, such as 'qemu-aarch64-static /usr/bin/python3'"
        return describe("this Python does not start alone", given=error, allowed="a command that starts Python in another process", fix=fix)
    return str(error) if isinstance(error, OSError) else None


def require_streams() -> None:
    """Open what the shell has closed of the standard streams, lest the next file that is opened takes the place of one.

    Raises:
        OSError: Standard output is closed, so that nobody could read the results.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed; for no output use >/dev/null")


def drop_output() -> None:
    """Give up what is left to be written to standard output, or Python complains of it at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def drop_unwritable_output() -> None:
    """Give up what is left for standard output where it cannot be written, as on a full disk."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        drop_output()
