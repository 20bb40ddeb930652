"""Chooses the store that a URL names. What only one of them needs is imported with it."""

from pathlib import Path

from platformdirs import user_data_path

from comity_server.limits import Limits
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.protocol import Store
from comity_server.stores.redis import url as redis_url


def open_store(url: str, limits: Limits, *, wait_replicas: int = 0, require_durable: bool = False) -> Store:
    """Make the store that a URL names, not yet opened: `memory:`, `sqlite:PATH` or a Redis. Raises ValueError.

    Args:
        wait_replicas: how many replicas of a Redis must have a write before it is acknowledged. 0 for other stores.
        require_durable: not to take a store that may lose what it has acknowledged. Of a Redis that is known when the
            store is opened.
    """
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise ValueError(f"{url!r} is not the URL of a store, such as memory: or sqlite:PATH")
    check_replicas(url, wait_replicas)
    if scheme == "memory":
        if rest:
            raise ValueError(f"memory: takes nothing after the colon, and got {rest!r}")
        if require_durable:
            raise ValueError("memory: keeps nothing beyond the process, and require_durable is set")
        return MemoryStore(limits)
    if scheme == "sqlite":
        from comity_server.stores.sqlite.store import SqliteStore

        return SqliteStore(sqlite_path(url), limits)
    if scheme in redis_url.FORMS:
        from comity_server.stores.redis.store import RedisStore  # which takes longer than all else that a start does

        target = redis_url.parse(url)
        return RedisStore(target, limits, wait_replicas=wait_replicas, require_durable=require_durable)
    kinds = "memory:, sqlite:PATH, and redis://HOST in its forms"
    raise ValueError(f"{scheme}: is a kind of store that does not exist: there are {kinds}")


def check_replicas(url: str, wait_replicas: int) -> None:
    """Raises ValueError if replicas are to be waited for where there are none."""
    scheme = url.partition(":")[0]
    if wait_replicas and scheme in ("memory", "sqlite"):
        raise ValueError(f"redis_wait_replicas is for replicas of a Redis, and {scheme}: has none")


def shown(url: str) -> str:
    """The URL without secrets, for logs."""
    scheme, _, _ = url.partition(":")
    return str(redis_url.parse(url)) if scheme in redis_url.FORMS else url


def default_url() -> str:
    """The store of a server that is not told of another: a file of the user's."""
    return f"sqlite:{user_data_path('comity', appauthor=False) / 'comity.db'}"


def sqlite_path(url: str) -> Path:
    """The file that `sqlite:PATH` names, without links, since it has one lock; `~` is the user's home. Raises
    ValueError."""
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite":
        raise ValueError(f"{url!r} is not sqlite:PATH")
    if not rest or "\0" in rest or rest.endswith(("/", "\\")):
        raise ValueError(f"{url!r} does not name a file, as sqlite:PATH does")
    try:
        path = Path(rest).expanduser().resolve()
        is_folder = path.is_dir()
    except OSError as error:
        raise ValueError(f"{url!r} cannot be used: {error.strerror}") from None
    except RuntimeError as error:  # whose home it is nobody knows, or links go round
        raise ValueError(f"{url!r} cannot be used: {error}") from None
    if is_folder:
        raise ValueError(f"{path} is a folder, and sqlite:PATH names a file")
    return path
