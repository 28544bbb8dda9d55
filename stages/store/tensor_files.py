"""How tensors are written: safetensors that fail like any file of Python's, and that other users may read where the umask lets them."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

OS_ERROR = re.compile(r"os error (\d+)")


@contextmanager
def written_plainly(file: Path) -> Iterator[None]:
    """Save safetensors in the block: the file gets the user's umask, and a save that fails leaves no half of it.

        with written_plainly(file):
            save_file(tensors, file)

    Args:
        file: File that the block writes.

    Raises:
        OSError: The operating system refused; safetensors has an error of its own for it, such as for a full disk.
    """
    file.touch()  # safetensors writes through a temporary file, which is its owner's alone
    mode = file.stat().st_mode & 0o777
    try:
        yield
        file.chmod(mode)
    except SafetensorError as error:
        file.unlink(missing_ok=True)
        if refused := OS_ERROR.search(str(error)):
            number = int(refused.group(1))
            raise OSError(number, os.strerror(number), str(file)) from error
        raise
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def in_rows(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the same arrays with their rows one after another in memory.

    safetensors writes an array's memory whatever its strides are, so that a slice of columns or a transposed array would be read back as other numbers.
    """
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
