"""Many paths in two arrays: Python's texts would be copied into every process that loads samples, an array is shared."""

from collections.abc import Iterable, Sequence

import numpy as np


class PackedPaths:
    """Paths by number.

    Attributes:
        text: All paths in UTF-8, one after the other, (bytes,) uint8.
        ends: Where each ends, (n,) int64.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, paths: Iterable[str]) -> "PackedPaths":
        """Pack paths."""
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(path) for path in encoded], dtype=np.int64))

    def __len__(self) -> int:
        """Return the number of paths."""
        return len(self.ends)

    def __getitem__(self, number: int) -> str:
        """Return one path."""
        start = self.ends[number - 1] if number else 0
        return self.text[start : self.ends[number]].tobytes().decode("utf-8", "surrogateescape")

    def chosen(self, numbers: Sequence[int] | np.ndarray) -> "PackedPaths":
        """Return some of the paths, in the order of their numbers."""
        return PackedPaths.of(self[int(number)] for number in numbers)
