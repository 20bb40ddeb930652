"""Names for writes, by which a server recognises a repeat. A fork gets names of its own."""

import asyncio
import os
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
    """Gives out request ids, to each event loop of a process under a name of its own.

    The server keeps the outcomes that a name awaits. Under one name for all, a write that is left pending on a loop
    that was stopped or is blocked would have it keep those of the others too, until it refuses their writes.
    """

    def __init__(self) -> None:
        self._start()
        _all.add(self)

    def _start(self) -> None:
        self._writers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Writer] = weakref.WeakKeyDictionary()

    @contextmanager
    def use(self, given: RequestId | None = None) -> Iterator[RequestId]:
        """The given id, or a new one, which counts as awaited until the block ends: repeats belong inside."""
        if given is not None:
            yield given
            return
        loop = asyncio.get_running_loop()
        writer = self._writers.get(loop)
        if writer is None:
            writer = self._writers[loop] = _Writer()
        request_id = writer.begin()
        try:
            yield request_id
        finally:
            del writer.in_flight[request_id.sequence]


class _Writer:
    def __init__(self) -> None:
        self.name = str(uuid.uuid4())
        self.last = 0
        self.in_flight: dict[int, None] = {}  # in growing order, so that the first one is the lowest

    def begin(self) -> RequestId:
        self.last += 1
        self.in_flight[self.last] = None
        return RequestId(self.name, self.last, awaited=next(iter(self.in_flight)))


_all: weakref.WeakSet[RequestIds] = weakref.WeakSet()


def _after_fork() -> None:
    # The child is another writer: under its parent's name it would use sequences that the parent uses too.
    for request_ids in list(_all):
        request_ids._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
