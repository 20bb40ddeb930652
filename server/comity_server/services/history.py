"""History: the commits between two revisions, in pages."""

from collections.abc import Sequence
from typing import Final

from comity.v1 import state_pb2
from comity_server.access.caller import Caller
from comity_server.access.rights import READ
from comity_server.errors import Compacted, RevisionInFuture
from comity_server.limits import Limits
from comity_server.model import Commit, Event, within
from comity_server.record import KEY, utf8_length
from comity_server.services import pages, wire
from comity_server.services.validate import AUTHOR_BYTES, Checks
from comity_server.stores.protocol import Store
from comity_server.turns import Pace

CHUNK: Final = 100  # commits read from the store at a time
STEP: Final = 250  # events that are looked at in one go
TAKES: Final = 4  # steps, of each commit and event
LOOK: Final = 5000  # commits and events looked at for a page: filters may let few through
COMMIT_OVERHEAD: Final = 96  # about what a commit's numbers and times take, in bytes


async def read(
    store: Store, limits: Limits, caller: Caller, request: state_pb2.HistoryRequest
) -> state_pb2.HistoryResponse:
    """One page. It ends where its commits, their bytes or what was looked at come to the limit."""
    checks = Checks(limits, caller)
    namespace, prefix, author = request.namespace, request.prefix, request.author
    from_revision, to_revision = request.from_revision, request.to_revision
    keys_only, previous = request.keys_only, request.previous
    checks.namespace("namespace", namespace)
    checks.prefix("prefix", prefix, READ)
    checks.text("author", author, AUTHOR_BYTES)
    checks.count("from_revision", from_revision)
    checks.count("to_revision", to_revision)
    page_size = checks.page_size("page_size", request.page_size)
    order = request.order
    if order not in state_pb2.HistoryOrder.values():
        checks.wrong("order", "is not an order")
    checks.finish()

    newest_first = order != state_pb2.HISTORY_ORDER_OLDEST_FIRST
    position = await store.position(namespace)
    newest, floor, epoch = position
    begin = skip = 0  # the revision to begin with, and how many of its events the page before had
    if place := pages.unseal(request, int, int, int, str):
        begin, skip, shown, of_epoch = place
        pages.check_epoch(of_epoch, position)
        if begin <= floor:  # what the page before promised is gone: an empty page would say that there was nothing
            raise Compacted(begin, floor, newest)
        newest = shown
    elif to_revision > newest:
        raise RevisionInFuture(to_revision, floor, newest)
    for revision in (from_revision, to_revision):
        if 0 < revision <= floor:
            raise Compacted(revision, floor, newest)
    first, last = from_revision or floor + 1, to_revision or newest
    if begin:
        first, last = (first, begin) if newest_first else (begin, last)

    page = _Page(page_size, limits.page_bytes, previous, keys_only)
    page.response.revision = newest
    page.response.floor = floor
    while first <= last:
        found = await store.commits(namespace, first=first, last=last, limit=CHUNK, newest_first=newest_first)
        for commit in found.commits:
            start = skip if commit.revision == begin else 0
            rest = await page.add(commit, await page.matching(commit, prefix, author), start)
            if rest is not None:
                page.response.next_page_token = pages.seal(request, [commit.revision, rest, newest, epoch])
                return page.response
        if not found.commits:
            break
        if newest_first:
            last = found.commits[-1].revision - 1
        else:
            first = found.commits[-1].revision + 1
    return page.response


class _Page:
    """An answer as it fills."""

    def __init__(self, max_commits: int, max_bytes: int, previous: bool, keys_only: bool) -> None:
        self.response = state_pb2.HistoryResponse()
        self._commits = max_commits
        self._room = max_bytes
        self._look = LOOK
        self._previous = previous
        self._keys_only = keys_only
        self._pace = Pace()

    async def matching(self, commit: Commit, prefix: str, author: str) -> Sequence[Event] | None:
        """The events to show; None: the commit is not to be shown. One that has no events at all, as a fork's first,
        is."""
        await self._pace.step(TAKES)
        if author and commit.author != author:
            return None
        if not prefix:
            return commit.events
        found: list[Event] = []
        for begin in range(0, len(commit.events), STEP):
            part = commit.events[begin : begin + STEP]
            found += [event for event in part if within(event.entry[KEY], prefix, True)]
            await self._pace.step(TAKES * len(part))
        return found or None

    async def add(self, commit: Commit, events: Sequence[Event] | None, start: int) -> int | None:
        """Add a commit with its events from `start` on, as far as there is room.

        None: all of it is done with. Else the event that the next page begins with.
        """
        if not self._commits or self._look <= 0:
            return start
        self._look -= 1 + len(commit.events)
        if events is None:
            return None
        room = self._room - COMMIT_OVERHEAD - utf8_length(commit.author) - utf8_length(commit.message)
        end = await self._fitting(events, start, room)
        if end < len(events) and self.response.commits:
            return start  # it may fit into a page of its own
        end = min(max(end, start + 1), len(events))
        message = self.response.commits.add()
        for begin in range(start, end, STEP) or (start,):
            shown = events[begin : min(begin + STEP, end)]
            wire.fill_commit(message, commit, shown, self._previous, self._keys_only)
            await self._pace.step(2 * TAKES * len(shown))
        self._commits -= 1
        self._room -= message.ByteSize()
        if end == len(events):
            return None
        message.partial = True
        return end

    async def _fitting(self, events: Sequence[Event], start: int, room: int) -> int:
        """The end of the events from `start` on that fit."""
        size = 0
        while start < len(events):
            part = events[start : start + STEP]
            for event in part:
                size += wire.event_size(event, self._previous, self._keys_only)
                if size > room:
                    return start
                start += 1
            await self._pace.step(TAKES * len(part))
        return start
