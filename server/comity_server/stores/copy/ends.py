"""The two ends of a copy, by the URLs of the stores."""

from contextlib import AbstractContextManager, nullcontext

from comity_server.limits import Limits
from comity_server.stores.redis.failures import named
from comity_server.stores.redis.reading import RedisReader
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.redis.url import FORMS, parse
from comity_server.stores.sqlite.reading import SqliteReader
from comity_server.stores.sqlite.store import SqliteStore
from comity_server.stores.transfer import Reader
from comity_server.stores.url import open_store, sqlite_path

Target = SqliteStore | RedisStore


def reader(url: str) -> Reader:
    """What reads a store, not yet opened. Raises ValueError as `open_store` does, and for a store in memory."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return SqliteReader(sqlite_path(url))
    if scheme in FORMS:
        return RedisReader(parse(url))
    open_store(url, Limits())
    raise ValueError("memory: is gone with its process, so that nothing can be copied from it or to it")


def store(url: str, *, wait_replicas: int = 0) -> Target:
    """The store itself, not yet opened, by a URL that `reader` takes."""
    made = open_store(url, Limits(), wait_replicas=wait_replicas)
    assert isinstance(made, SqliteStore | RedisStore)
    return made


def naming(url: str) -> AbstractContextManager[None]:
    """In the block, errors of a Redis that a store uses say which one it is."""
    return named(parse(url)) if url.partition(":")[0] in FORMS else nullcontext()


def are_one(source: Reader, target: Reader) -> bool:
    """Whether two readers are of one store. Of a Redis that is known when they are open: it may have many addresses."""
    if isinstance(source, SqliteReader) and isinstance(target, SqliteReader):
        return source.path == target.path
    if isinstance(source, RedisReader) and isinstance(target, RedisReader):
        return source.place == target.place and bool({*source.servers} & {*target.servers})
    return False
