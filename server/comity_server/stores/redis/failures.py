"""What fails at Redis, in words that clients of the server may read: they are told nothing that a library says."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    ConnectionError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from comity_server.errors import StateError, StoreFull, StoreUnavailable
from comity_server.stores.redis.url import Target

SEE_LOG: Final = "; the log of the server says why"
REFUSED: Final = f"Redis refused{SEE_LOG}"

PASSING: Final = (  # what is tried again: it ends by itself
    ConnectionError,
    TimeoutError,
    ReadOnlyError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    TryAgainError,
    AskError,  # and MovedError: the node does not have the slot any more
    ClusterError,
    OSError,
    RedisClusterException,
)


class Passing(Exception):
    """A failure that ends by itself. What was asked for may have been done."""

    def __init__(self, failure: StateError) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Unreadable(StoreUnavailable):
    """What Redis has under a key is not what a server writes: it may be another program's."""


class Unusable(StoreUnavailable):
    """A Redis cannot be used. The message says which one, and why, to whoever runs a server or a command."""


@contextmanager
def named(target: Target) -> Iterator[None]:
    """In the block, raise Unusable where a Redis fails."""
    try:
        yield
    except Unusable:
        raise
    except (StoreUnavailable, StoreFull, Passing) as error:
        raise unavailable(target, error) from error


def unavailable(target: Target, error: StateError | Passing) -> Unusable:
    message = error.failure.message if isinstance(error, Passing) else error.message
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return Unusable(f"{target}: {message.removesuffix(SEE_LOG)}{cause}")


def is_of_user(error: BaseException) -> bool:
    """Whether Redis refuses the server's user, for good."""
    return any(isinstance(one, AuthenticationError | NoPermissionError) for one in _causes(error))


def passing(error: Exception) -> StateError:
    """What is wrong where it is worth another attempt."""
    if isinstance(error, ReadOnlyError):
        return StoreUnavailable("Redis is read-only")
    if is_of_user(error):
        return StoreUnavailable("Redis refuses the server's user")
    if "Cluster mode is not enabled" in str(error):
        return StoreUnavailable("this Redis is no Cluster")
    return StoreUnavailable("Redis cannot be reached")


def unreadable_of(error: Exception) -> Unreadable | None:
    """What an error means if it is the key's, and Redis is well."""
    return Unreadable("Redis has something else under a key of the store") if "WRONGTYPE" in str(error) else None


def refusal_of(error: RedisError) -> StateError:
    """What is wrong where another attempt would fail likewise."""
    if (unreadable := unreadable_of(error)) is not None:
        return unreadable
    if isinstance(error, OutOfMemoryError) or "OOM " in str(error):
        return StoreFull("Redis is out of memory; nothing was done")
    if isinstance(error, NoPermissionError):
        refused = re.search(r"'([\w|]+)' command", str(error))
        what = f" the command {refused[1].upper()}" if refused else " its keys" if " key" in str(error) else ""
        return StoreUnavailable(f"Redis refuses the server's user{what}")
    if isinstance(error, ResponseError) and "NOREPLICAS" in str(error):
        return StoreUnavailable("Redis has too few replicas to take writes")
    if isinstance(error, ResponseError) and "unknown command" in str(error) and "SENTINEL" in str(error):
        return StoreUnavailable("this is no Sentinel")
    if isinstance(error, ResponseError) and "MISCONF" in str(error):
        return StoreUnavailable("Redis cannot write to its disk")
    return StoreUnavailable(REFUSED)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what led to it: of a Cluster, redis-py says at first only that nobody there would answer."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
