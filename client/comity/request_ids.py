"""Names for writes, by which a server recognises a repeat. A fork gets names of its own."""

import asyncio
import os
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["RequestId", "RequestIds", "Writer"]


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
        self._writers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Writer] = weakref.WeakKeyDictionary()

    @contextmanager
    def use(self, given: RequestId | None = None) -> Iterator[RequestId]:
        """The given id, or a new one, which counts as awaited until the block ends: repeats belong inside."""
        if given is not None:
            yield given
            return
        writer = self.writer(asyncio.get_running_loop())
        sequence = writer.begin()
        try:
            yield writer.request_id(sequence)
        finally:
            writer.end(sequence)

    def writer(self, loop: asyncio.AbstractEventLoop) -> "Writer":
        """The name that an event loop writes under."""
        writer = self._writers.get(loop)
        if writer is None:
            writer = self._writers[loop] = Writer()
        return writer


class Writer:
    """Counts what is done under one name."""

    def __init__(self) -> None:
        self.name = str(uuid.uuid4())
        self._last = 0
        self._in_flight: dict[int, None] = {}  # in growing order, so that the first one is the lowest

    def begin(self) -> int:
        """A new sequence, which counts as awaited until its end."""
        self._last += 1
        self._in_flight[self._last] = None
        return self._last

    def skip(self) -> int:
        """A sequence that names no write, so that nobody awaits it."""
        self._last += 1
        return self._last

    def end(self, sequence: int) -> None:
        """The outcome is known, or nobody asks for it any more."""
        del self._in_flight[sequence]

    def awaited(self) -> int:
        """The lowest sequence that counts as awaited; 0: none does."""
        return next(iter(self._in_flight), 0)

    def request_id(self, sequence: int) -> RequestId:
        """What a call by itself says."""
        return RequestId(self.name, sequence, self.awaited())


_all: weakref.WeakSet[RequestIds] = weakref.WeakSet()


def _after_fork() -> None:
    # The child is another writer: under its parent's name it would use sequences that the parent uses too.
    for request_ids in list(_all):
        request_ids._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
