"""Names for writes, by which a server recognises a repeat. A fork gets names of its own."""

import os
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["RequestId", "RequestIds"]


@dataclass(frozen=True, slots=True)
class RequestId:
    """The name of one write. A repeat with the same name answers what the first one answered, and applies nothing.

    client: a name that is this writer's own, such as a UUID; 1 to 128 bytes.
    sequence: the number of this write, from 1; never used twice for two writes of one client.
    awaited: the lowest sequence whose answer the client still awaits; 0 says nothing.
    """

    client: str
    sequence: int
    awaited: int = 0


class RequestIds:
    """Gives out request ids to the threads and event loops of one process."""

    def __init__(self) -> None:
        self._start()
        _all.add(self)

    def _start(self) -> None:
        self._client = str(uuid.uuid4())
        self._lock = threading.Lock()
        self._last = 0
        self._in_flight: dict[int, None] = {}  # in growing order, so that the first one is the lowest

    @contextmanager
    def use(self, given: RequestId | None = None) -> Iterator[RequestId]:
        """The given id, or a new one, which counts as awaited until the block ends: repeats belong inside."""
        if given is not None:
            yield given
            return
        lock, in_flight = self._lock, self._in_flight
        with lock:
            sequence = self._last = self._last + 1
            in_flight[sequence] = None
            request_id = RequestId(self._client, sequence, awaited=next(iter(in_flight)))
        try:
            yield request_id
        finally:
            with lock:
                del in_flight[sequence]


_all: weakref.WeakSet[RequestIds] = weakref.WeakSet()


def _after_fork() -> None:
    # The child is another writer: under its parent's name it would use sequences that the parent uses too.
    for request_ids in list(_all):
        request_ids._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
