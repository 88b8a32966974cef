"""The small world of the PDP, as a fixture."""

import pytest
from policies.policy_world import World


@pytest.fixture
def world() -> type[World]:
    return World
