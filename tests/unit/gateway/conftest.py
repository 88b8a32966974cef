"""The gateway's tests run on the loop that serves, most in a small whole world."""

from collections.abc import AsyncIterator

import pytest
from worlds import World


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world
