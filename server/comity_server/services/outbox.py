"""What streams have answered that their clients have not taken off, so that no client can have the server keep it all.

A stream waits before it makes an answer until there is room for it, and holds nothing meanwhile. One that has some of
the room waits no more until its client has taken everything off: so no stream keeps room and waits for some.
"""

import asyncio
from typing import Final

from comity_server.access.bounds import Payer
from comity_server.services.admission import Admission, Place

ANSWER_BYTES: Final = 2 * 1024 * 1024  # that an answer counts as until it is made
COPIES: Final = 2  # of a message on its way: the server's and gRPC's
SHARE: Final = 4  # of what calls may take up watches may take up one part, and pipelines another


class Outboxes:
    """The room that there is for streams of one kind.

    Args:
        connection_bytes: what calls of one connection may take up.
        total_bytes: the same of all.
    """

    def __init__(self, connection_bytes: int, total_bytes: int) -> None:
        self._room = Admission(connection_bytes // SHARE, ANSWER_BYTES, total_bytes // SHARE)

    def open(self, peer: str, payer: Payer) -> "Outbox":
        """That of a stream. To be left."""
        return Outbox(self._room, peer, payer)

    def close(self) -> None:
        """Let no stream wait any more: whoever does is told Draining."""
        self._room.close()


class Outbox:
    """What one stream has answered. An answer is either reserved, and then settled as what it takes up, or given up
    with all else.

    Args:
        room: which it takes up.
        peer: the connection.
        payer: who it counts as.
    """

    def __init__(self, room: Admission, peer: str, payer: Payer) -> None:
        self._room = room
        self._peer = peer
        self._payer = payer
        self._place: Place | None = None
        self._reserved = 0
        self._held = 0
        self._entering = asyncio.Lock()
        self._turn: asyncio.Future[None] | None = None
        self._gave_up = False

    @property
    def is_reserved(self) -> bool:
        """Whether an answer has its room, and is not made yet."""
        return self._reserved > 0

    @property
    def waits(self) -> bool:
        """Whether an answer waits for room."""
        return self._turn is not None

    def now(self) -> bool:
        """Reserve room for an answer, if there is some."""
        if self._place is None:
            if self._turn is not None:
                return False
            self._place = self._room.enter_now(self._peer, self._payer)
            if self._place is None:
                return False
        self._reserved += 1
        self._fit()
        return True

    async def wait(self) -> None:
        """The same, and wait until there is some. Raises Draining, and CancelledError if `give_up` is called."""
        while not self.now():
            async with self._entering:
                if self._place is None:
                    if self._gave_up:
                        raise asyncio.CancelledError
                    self._turn = asyncio.get_running_loop().create_future()
                    try:
                        self._place = await self._room.enter(self._peer, self._payer, patient=True, turn=self._turn)
                    finally:
                        self._turn = None

    def give_up(self) -> None:
        """Wait no more, nor later."""
        self._gave_up = True
        if self._turn is not None:
            self._turn.cancel()

    def settle(self, size: int) -> None:
        """An answer that had its room reserved takes up so many bytes."""
        self._reserved -= 1
        self._held += size
        self._fit()

    def free(self, size: int) -> None:
        """So many bytes are off to the client."""
        self._held -= size
        self._fit()

    def leave(self) -> None:
        """All is off, or nobody is there any more to take it off. May be called twice."""
        self._reserved = self._held = 0
        self._fit()

    def _fit(self) -> None:
        if self._place is None:
            return
        size = self._held + self._reserved * ANSWER_BYTES
        if size:
            self._place.resize(size)
        else:
            self._place.leave()
            self._place = None
