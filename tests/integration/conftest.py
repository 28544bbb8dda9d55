"""What several integration tests look at."""

import pytest
from tiny_comparison import Compared, compare_tiny


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    return compare_tiny(tmp_path_factory.mktemp("compared"))
