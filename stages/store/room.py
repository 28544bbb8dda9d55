"""Whether there is room on the disk, for libraries that do not say why they could not write."""

import errno
import tempfile
from pathlib import Path

MACHINE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM})
"""Error numbers that are the machine's fault: no disk space, no memory."""
BLOCK = 1 << 20


def require_room(folder: Path, size: int) -> None:
    """Check that a file of `size` bytes could be written in a folder, by writing one.

    Raises:
        OSError: It could not, and this says why.
    """
    with tempfile.TemporaryFile(dir=folder) as stream:
        for start in range(0, size, BLOCK):
            stream.write(bytes(min(BLOCK, size - start)))
        stream.flush()
