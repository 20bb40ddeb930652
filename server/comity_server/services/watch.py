"""Watch: one cursor of the feed, written to one stream."""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Final

from comity.v1 import state_pb2, types_pb2
from comity_server import tasks
from comity_server.access.bounds import Meter
from comity_server.access.rates import LOOK_SECONDS
from comity_server.access.rights import READ
from comity_server.feed import Cursor, Feed
from comity_server.limits import Limits
from comity_server.pieces import Interest
from comity_server.services.call import Call
from comity_server.services.outbox import COPIES, Outbox, Outboxes
from comity_server.services.validate import EPOCH_BYTES, Checks

MESSAGE_BYTES: Final = 1024 * 1024  # about as much a message carries, and as much as a slow client holds back
PROGRESS_LEAST: Final = 0.1  # seconds
PROGRESS_MOST: Final = 86400.0
PROGRESS_PER_SECOND: Final = 2000  # of the streams of one principal: each takes some 100 µs, and costs it nothing
SPREAD: Final = 0.1  # of the interval: streams that one commit woke do not all say how far they are at once


async def stream(
    feed: Feed,
    outboxes: Outboxes,
    limits: Limits,
    progress_interval: float,
    call: Call,
    request: state_pb2.WatchRequest,
) -> AsyncGenerator[bytes]:
    """Serialised messages: first that the stream is live, then commits, or the revision where it is quiet.

    The next message is read when the one before was taken off and there is room for it, so that slow clients cost no
    memory; and sent when nothing is owed, so that one which looks at much leaves room for others.
    """
    caller = call.caller
    checks = Checks(limits, caller)
    namespace, from_revision, epoch = request.namespace, request.from_revision, request.epoch
    checks.namespace("namespace", namespace)
    checks.count("from_revision", from_revision)
    checks.text("epoch", epoch, EPOCH_BYTES)
    interest = _interest(request, checks)
    asked = _progress_interval(request, checks) if request.HasField("progress_interval") else progress_interval
    checks.finish()

    def still() -> None:
        again = Checks(limits, caller, namespace)
        _interest(request, again)
        again.finish()

    outbox = outboxes.open(call.peer, call.meter.payer)
    cursor = await feed.watch(namespace, interest, from_revision=from_revision, epoch=epoch)

    def end(error: Exception) -> None:
        cursor.end(error)
        outbox.give_up()

    paid = _Paid(call.meter, outbox, cursor)
    try:
        with caller.standing(still, end):
            still()  # it may have been taken away meanwhile
            created = state_pb2.WatchResponse(revision=cursor.revision, created=True, epoch=cursor.epoch)
            yield created.SerializeToString()
            progress = state_pb2.WatchResponse()
            clock = asyncio.get_running_loop().time
            while True:
                quiet = _interval(asked, progress_interval, call.meter.open) * (1 - SPREAD * random.random())
                paid.until = clock() + quiet
                before = cursor.revision
                try:
                    batch = await cursor.read(MESSAGE_BYTES, quiet, paid)
                except _Owing:
                    yield _progress(call.meter, cursor.revision)
                    continue
                except asyncio.CancelledError:
                    cursor.check()  # it does not wait for room any more if that has ended
                    raise
                if not batch.fragments and call.meter.owes():
                    yield _progress(call.meter, batch.revision)
                    continue
                progress.revision = batch.revision
                message = b"".join((*batch.fragments, progress.SerializeToString()))
                is_small = not outbox.is_reserved
                if not is_small:
                    outbox.settle(COPIES * len(message))
                while is_small and not await paid.turn():
                    paid.until = clock() + quiet
                    yield _progress(call.meter, before)
                del batch  # of which the message is a copy
                call.meter.charge(0, len(message))  # before any other looks whether something is owed
                call.meter.waive(len(message))
                yield message
                del message
                outbox.leave()
    finally:
        outbox.leave()
        await paid.close()
        await cursor.close()


def _progress(meter: Meter, revision: int) -> bytes:
    """How far a stream is that waits until nothing is owed: a client takes one that says nothing for dead."""
    message = state_pb2.WatchResponse(revision=revision).SerializeToString()
    meter.waive(len(message))
    return message


class _Owing(Exception):
    """The time to say something has come, and what there is to be read is not to be sent yet."""


class _Paid:
    """Room for what is large, which is there when nothing is owed: of all the streams that one commit wakes one is let
    go at a time, and others that use the namespace have their turns in between. Else all of them would owe together
    what none of them could have taken alone.

    Args:
        meter: what the stream takes.
        outbox: where there has to be room besides.
        cursor: tells when there is nothing to be waited for any more.
    """

    def __init__(self, meter: Meter, outbox: Outbox, cursor: Cursor) -> None:
        self.until = 0.0  # the time of the loop at which `wait` raises _Owing: `turn` waits no longer
        self._meter = meter
        self._outbox = outbox
        self._cursor = cursor
        self._turn: asyncio.Task[None] | None = None

    def now(self) -> bool:
        return not self._meter.owes() and self._outbox.now()

    async def wait(self) -> None:
        if not await self.turn():
            raise _Owing
        await self._outbox.wait()

    async def turn(self) -> bool:
        """Wait until nothing is owed, in turn with others. False: `until` has come first; the turn is kept. Raises what
        the cursor was ended with."""
        clock = asyncio.get_running_loop().time
        if self._turn is None:
            if not self._meter.owes():
                return True
            self._turn = asyncio.create_task(self._meter.hold(0, 0))
        while not self._turn.done():
            self._cursor.check()
            if (left := self.until - clock()) <= 0:
                return False
            await asyncio.wait([self._turn], timeout=min(left, LOOK_SECONDS))
        self._turn = None
        return True

    async def close(self) -> None:
        """Wait no more."""
        if self._turn is not None:
            await tasks.end(self._turn)


def _interest(request: state_pb2.WatchRequest, checks: Checks) -> Interest:
    target = ""
    match request.WhichOneof("target"):
        case "key":
            target = request.key
            checks.key("key", target, READ)
        case "prefix":
            target = request.prefix
            checks.prefix("prefix", target, READ)
        case None:
            checks.wrong("key", "a key or a prefix is required")
    types = set(request.event_types)
    if not types <= {types_pb2.EVENT_TYPE_PUT, types_pb2.EVENT_TYPE_DELETE}:
        checks.wrong("event_types", "must be EVENT_TYPE_PUT or EVENT_TYPE_DELETE")
    return Interest(
        target,
        request.HasField("prefix"),
        puts=not types or types_pb2.EVENT_TYPE_PUT in types,
        deletes=not types or types_pb2.EVENT_TYPE_DELETE in types,
        previous=request.previous,
    )


def _interval(asked: float, usual: float, streams: int) -> float:
    """How often a stream says how far it is, in seconds: as is asked for, unless its principal has so many that they
    would leave nothing for others; but never less often than is usual for that alone."""
    return max(asked, min(usual, streams / PROGRESS_PER_SECOND))


def _progress_interval(request: state_pb2.WatchRequest, checks: Checks) -> float:
    seconds = checks.duration("progress_interval", request.progress_interval)
    if seconds is None or seconds < PROGRESS_LEAST:
        checks.wrong("progress_interval", f"must be at least {PROGRESS_LEAST} s")
        return PROGRESS_LEAST
    return min(seconds, PROGRESS_MOST)
