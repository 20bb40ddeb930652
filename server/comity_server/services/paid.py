"""When what a watch has read may be sent: nothing is owed, and there is room for it.

Of all the streams that one commit wakes one is let go at a time, and others that use the namespace have their turns in
between. Else all of them would owe together what none of them could have taken alone.
"""

import asyncio

from comity_server import tasks
from comity_server.access.bounds import Meter
from comity_server.access.rates import LOOK_SECONDS
from comity_server.feed import Cursor
from comity_server.services.outbox import Outbox


class Owing(Exception):
    """The time to say something has come, and what there is to be read is not to be sent yet."""


class Paid:
    """Implements `feed.Room`: room for what is large, which is there when nothing is owed.

    Args:
        meter: what the stream takes.
        outbox: where there has to be room besides.
        cursor: tells when there is nothing to be waited for any more.
    """

    def __init__(self, meter: Meter, outbox: Outbox, cursor: Cursor) -> None:
        self.until = 0.0
        """The time of the loop at which `wait` raises Owing, and `turn` waits no longer."""
        self._meter = meter
        self._outbox = outbox
        self._cursor = cursor
        self._turn: asyncio.Task[None] | None = None

    def now(self) -> bool:
        return not self._meter.owes() and self._outbox.now()

    async def wait(self) -> None:
        if not await self.turn():
            raise Owing
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
