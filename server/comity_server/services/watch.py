"""Watch: one cursor of the feed, written to one stream."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from comity.v1 import state_pb2, types_pb2
from comity_server.access.rights import READ
from comity_server.feed import Feed
from comity_server.limits import Limits
from comity_server.pieces import Interest
from comity_server.services.call import Call
from comity_server.services.outbox import COPIES, Outboxes
from comity_server.services.paid import Owing, Paid
from comity_server.services.pulse import Pulse
from comity_server.services.validate import EPOCH_BYTES, Checks

MESSAGE_BYTES: Final = 1024 * 1024  # about as much a message carries, and as much as a slow client holds back
PROGRESS_LEAST: Final = 0.1  # seconds
PROGRESS_MOST: Final = 86400.0


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

    paid = Paid(call.meter, outbox, cursor)
    pulse = Pulse(asked, progress_interval, call.meter)
    try:
        with caller.standing(still, end):
            still()  # it may have been taken away meanwhile
            created = pulse.say(cursor.revision)
            created.created, created.epoch = True, cursor.epoch
            yield created.SerializeToString()
            clock = asyncio.get_running_loop().time
            while True:
                paid.until = clock() + pulse.quiet
                before = cursor.revision
                try:
                    batch = await cursor.read(MESSAGE_BYTES, pulse.quiet, paid)
                except Owing:
                    yield pulse.say_for_nothing(cursor.revision)
                    continue
                except asyncio.CancelledError:
                    cursor.check()  # it does not wait for room any more if that has ended
                    raise
                if not batch.fragments and call.meter.owes():
                    yield pulse.say_for_nothing(batch.revision)
                    continue
                message = b"".join((*batch.fragments, pulse.say(batch.revision).SerializeToString()))
                is_small = not outbox.is_reserved
                if not is_small:
                    outbox.settle(COPIES * len(message))
                while is_small and not await paid.turn():
                    yield pulse.say_for_nothing(before)
                    paid.until = clock() + pulse.quiet
                del batch  # of which the message is a copy
                yield message
                del message
                outbox.leave()
    finally:
        outbox.leave()
        await paid.close()
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


def _progress_interval(request: state_pb2.WatchRequest, checks: Checks) -> float:
    seconds = checks.duration("progress_interval", request.progress_interval)
    if seconds is None or seconds < PROGRESS_LEAST:
        checks.wrong("progress_interval", f"must be at least {PROGRESS_LEAST} s")
        return PROGRESS_LEAST
    return min(seconds, PROGRESS_MOST)
