"""One gateway and its servers for all tests across eras."""

from collections.abc import Iterator

import pytest
from matrices import Matrix, open_matrix


@pytest.fixture(scope="package")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with open_matrix(tmp_path_factory.mktemp("matrix")) as matrix:
        yield matrix
