"""The lists of a pipeline: they go by themselves, one after another, and a page is read when there is room for it.

Each shows the revision of its place. Where writes are before it, a transaction without operations has that place, its
mark, and says which revision it saw.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from comity.v1 import state_pb2
from comity_server import tasks
from comity_server.access.caller import Caller
from comity_server.committer import Answer
from comity_server.errors import InvalidRequest, OutsideHistory, StateError, Violation
from comity_server.limits import Limits
from comity_server.services import lists
from comity_server.services.deadline import until
from comity_server.services.outbox import Outbox
from comity_server.services.pipeline_messages import LIST, RESULT_BYTES, Result
from comity_server.stores.protocol import Store


class Marked(Protocol):
    """What a list's mark is committed with."""

    answer: Answer | None  # set when the list has its turn


class Waiting:
    """A list that waits for its turn."""

    __slots__ = ("answer", "at", "deadline", "id", "place", "request", "within")

    def __init__(
        self,
        id: int,
        request: state_pb2.ListRequest,
        deadline: float | None,
        answer: Callable[[Sequence[Result]], None],
    ) -> None:
        self.id = id
        self.request = request
        self.deadline = deadline
        self.answer = answer
        self.within: Marked | None = None  # which has its mark
        self.place = 0  # of the mark
        self.at: int | StateError = 0  # without a mark: the revision to read at, or why it is not known

    def is_at_a_revision(self) -> bool:
        """Whether the request says what it is to show: then it has no place among the writes."""
        return bool(self.request.revision or self.request.page_token)


class Lists:
    """Those of one stream.

    Args:
        store: what is read.
        limits: for what one list may ask.
        caller: whose stream it is.
        room: bytes of pages that are not taken off, from which on no other is read.
        outbox: which pages take up.
        fail: told why a list is never answered.
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        caller: Caller,
        room: int,
        outbox: Outbox,
        fail: Callable[[Exception], None],
    ) -> None:
        self.namespace = ""
        self._store = store
        self._limits = limits
        self._caller = caller
        self._room = room
        self._outbox = outbox
        self._fail = fail
        self._waiting: deque[Waiting] = deque()
        self._reader: asyncio.Task[None] | None = None
        self._page_bytes = 0  # of pages that are not taken off
        self._taken = asyncio.Event()

    async def locate(self, ahead: Sequence[Waiting]) -> None:
        """Have the lists that no write is before read what there is now, whatever the writes after them do."""
        at: int | StateError
        try:
            async with until(ahead[0].deadline):
                at = (await self._store.position(self.namespace)).revision
        except StateError as error:
            at = error
        for waiting in ahead:
            waiting.at = at

    def add(self, listed: Sequence[Waiting]) -> None:
        """Read and answer lists, behind those that wait already."""
        self._waiting.extend(listed)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())

    def take_off(self, size: int) -> None:
        """A page of so many bytes is off to the client."""
        self._page_bytes -= size
        self._outbox.free(size)
        self._taken.set()

    async def close(self) -> None:
        """Read no more."""
        if self._reader is not None:
            await tasks.end(self._reader)

    async def _read(self) -> None:
        try:
            while self._waiting:
                while self._page_bytes >= self._room:
                    self._taken.clear()
                    await self._taken.wait()
                waiting = self._waiting[0]
                await self._outbox.wait()
                size = 0
                result: Result
                try:
                    async with until(waiting.deadline):
                        page = await self._page(waiting)
                    size = RESULT_BYTES + page.ByteSize()
                    self._page_bytes += size
                    result = (waiting.id, LIST, page, size)
                except StateError as error:
                    result = (waiting.id, LIST, None, error)
                self._outbox.settle(size)
                self._waiting.popleft()
                waiting.answer([result])
                await asyncio.sleep(0)  # many lists must not hold up others
        except asyncio.CancelledError as error:
            self._fail(tasks.unforeseen(error))
            raise
        except Exception as error:  # noqa: BLE001 - the call ends with it
            self._fail(error)
        finally:
            self._reader = None

    async def _page(self, waiting: Waiting) -> state_pb2.ListResponse:
        request = waiting.request
        if request.namespace:
            raise InvalidRequest(Violation("list.namespace", "must be empty here"))
        request.namespace = self.namespace
        within, at = waiting.within, waiting.at
        if within is not None:
            assert within.answer is not None
            await asyncio.wait([within.answer])
            outcome = within.answer.result()[waiting.place]
            at = outcome if isinstance(outcome, StateError) else outcome.revision
        if isinstance(at, StateError):
            raise at
        try:
            return await lists.read(self._store, self._limits, self._caller, request, at)
        except OutsideHistory:  # it was compacted, or the namespace was begun anew
            if waiting.is_at_a_revision():
                raise
            return await lists.read(self._store, self._limits, self._caller, request)
