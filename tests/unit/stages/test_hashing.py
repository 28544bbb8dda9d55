import hashlib
from pathlib import Path

import pytest

from bonsai.stages.hashing import CHUNK, sha256_of


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1])
def test_a_file_of_any_length_has_its_sha256(size: int, tmp_path: Path) -> None:
    content = bytes(place % 251 for place in range(size))
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as stream:
        assert sha256_of(stream) == hashlib.sha256(content).hexdigest()
