"""The stores that copies are made from and to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_servers import RedisServer
from tests.stores.copy.copies import KINDS, PAIRS, Urls


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What disturbs a copy from one kind to the other disturbs that to its own kind: that is for `make soak`."""
    for item in items:
        if item.path.stem == "test_copy_disturbed" and any(f"[{kind}-{kind}]" in item.nodeid for kind in KINDS):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """One that waits for no disk: what that is for others test."""
    with RedisServer("--appendonly", "no") as running:
        yield running


@pytest.fixture
def urls(tmp_path: Path, redis_server: RedisServer) -> Urls:
    return Urls(tmp_path, redis_server)


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, urls: Urls) -> tuple[str, str]:
    """The URLs of a source and of a target, of each kind."""
    one, other = request.param
    return urls.new(one), urls.new(other)
