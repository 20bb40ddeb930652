"""A feed that has ended well when a test has."""

from collections.abc import AsyncIterator

import pytest

from tests.core.feeding import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    assert not made.feed._followed, "a cursor was left open"
    assert not made.store._listeners
