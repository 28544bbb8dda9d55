"""Whether an error means that the memory is full, which says nothing of the code that was running."""

import errno
import re

WORDS = re.compile(r"allocate memory|not enough memory|out of memory|bad[ _]alloc", re.IGNORECASE)
"""Words in out-of-memory messages of torch and ONNX Runtime, which have no common error class for it."""


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error, or the one that it was raised from, says that the memory is full, of the machine or of a GPU."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if isinstance(error, RuntimeError) and WORDS.search(str(error)) is not None:
        return True
    return error.__cause__ is not None and lacks_memory(error.__cause__)


def blame_memory(error: BaseException) -> None:
    """Return where an error may be a fault of the code that raised it; called first wherever all that a user's code may raise is caught.

    Raises:
        MemoryError: The memory is full.
    """
    if lacks_memory(error):
        words = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise MemoryError(f"{type(error).__name__}: {words}" if words else type(error).__name__) from error
