"""Chooses the store that a URL names."""

from pathlib import Path

from platformdirs import user_data_path

from comity_server.limits import Limits
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.protocol import Store
from comity_server.stores.sqlite.store import SqliteStore


def open_store(url: str, limits: Limits) -> Store:
    """Make the store that a URL names, not yet opened: `memory:` or `sqlite:PATH`. Raises ValueError."""
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise ValueError(f"{url!r} is not the URL of a store, such as memory: or sqlite:PATH")
    if scheme == "memory":
        if rest:
            raise ValueError(f"memory: takes nothing after the colon, and got {rest!r}")
        return MemoryStore(limits)
    if scheme == "sqlite":
        return SqliteStore(sqlite_path(url), limits)
    raise ValueError(f"{url!r} names a kind of store that does not exist: there are memory: and sqlite:PATH")


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
