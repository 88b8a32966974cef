"""Binds tests to REQUIREMENTS and runs async tests on asyncio."""

import pytest
from requirements import KEPT


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requirement(ids): the promises this test keeps")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        KEPT[item.nodeid] = {
            req_id for mark in item.iter_markers("requirement") for req_id in mark.args
        }


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
