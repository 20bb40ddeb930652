"""Where a scenario takes place: a real server process over one of the stores, which may be ended and started again."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests import servers
from tests.redis_servers import RedisServer

KINDS: Final = ("memory", "sqlite", "redis")
DURABLE: Final = ("sqlite", "redis")


class Place:
    """A server over a store."""

    def __init__(self, kind: str, url: str, *settings: str) -> None:
        self.kind = kind
        self.url = url
        self.settings = settings
        self.server = servers.start("--store", url, *settings)

    @property
    def address(self) -> str:
        return self.server.address


@contextmanager
def place(kind: str, redis: RedisServer, *settings: str) -> Iterator[Place]:
    """A server with its settings over a store of its own."""
    with tempfile.TemporaryDirectory(prefix="scenario-") as folder:
        url = store_url(kind, redis, Path(folder))
        made = Place(kind, url, *settings)
        try:
            yield made
        finally:
            made.server.close()


def store_url(kind: str, redis: RedisServer, folder: Path) -> str:
    """A store of a kind that nobody else uses."""
    match kind:
        case "memory":
            return "memory:"
        case "sqlite":
            return f"sqlite:{folder / 'state.db'}"
        case _:
            return f"{redis.url}?prefix=s-{uuid.uuid4().hex}"
