"""Watch: one cursor of the feed, written to one stream."""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Final

from comity.v1 import state_pb2, types_pb2
from comity_server.access.rates import LOOK_SECONDS
from comity_server.access.rights import READ
from comity_server.feed import Feed
from comity_server.limits import Limits
from comity_server.pieces import Interest
from comity_server.services.call import Call
from comity_server.services.outbox import COPIES, Outboxes
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
    memory, and when it is paid for, so that one which looks at much leaves room for others. What is small goes always.
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

    try:
        with caller.standing(still, end):
            still()  # it may have been taken away meanwhile
            created = state_pb2.WatchResponse(revision=cursor.revision, created=True, epoch=cursor.epoch)
            yield created.SerializeToString()
            progress = state_pb2.WatchResponse()
            clock = asyncio.get_running_loop().time
            while True:
                quiet = _interval(asked, progress_interval, call.meter.open) * (1 - SPREAD * random.random())
                told = clock()
                while seconds := call.meter.owes():
                    cursor.check()
                    if (left := told + quiet - clock()) > 0:
                        await asyncio.sleep(min(seconds, left, LOOK_SECONDS))
                    else:  # a client takes a stream that says nothing for dead
                        told = clock()
                        progress.revision = cursor.revision
                        message = progress.SerializeToString()
                        call.meter.waive(len(message))
                        yield message
                try:
                    batch = await cursor.read(MESSAGE_BYTES, quiet, outbox)
                except asyncio.CancelledError:
                    cursor.check()  # it does not wait for room any more if that has ended
                    raise
                progress.revision = batch.revision
                message = b"".join((*batch.fragments, progress.SerializeToString()))
                del batch  # of which the message is a copy
                if outbox.is_reserved:
                    outbox.settle(COPIES * len(message))
                yield message
                del message
                outbox.leave()
    finally:
        outbox.leave()
        await cursor.close()


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
