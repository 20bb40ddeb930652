"""How much of the server's memory the calls of one connection take up, so that no client can take up all of it.

A call counts as the largest request until its own was read, then as its request, and in the end as its answer, until
the client has taken that. Where there is no room a call waits, unread, until others of its connection have made some:
so who sends without an end, or does not read what it asked for, holds up itself.

Who opens many connections gets less for each: when those together take up much, each has one call at a time, and when
they take up all that there is, each principal has, or each address where nobody is known; others are refused.
"""

import asyncio
from collections import Counter
from typing import Final

from comity_server.access.bounds import Payer
from comity_server.errors import Draining, TooManyCalls

FULL_CONNECTIONS: Final = 16  # when as much as these may hold is taken up, every connection has one call at a time
WAIT_SECONDS: Final = 1.0  # how long a call waits for room where no connection but its own can make any


class Admission:
    """Gives calls their places. Use from one event loop.

    Args:
        connection_bytes: what the calls of one connection may take up; one alone may be larger.
        request_bytes: the size of the largest request.
        total_bytes: what the calls of all connections may take up; one alone of a payer may be larger.
        limit: what that is called where it refuses a call.
    """

    def __init__(
        self, connection_bytes: int, request_bytes: int, total_bytes: int | None = None, limit: str = "max_bytes"
    ) -> None:
        self._connection_bytes = connection_bytes
        self._request_bytes = request_bytes
        self._total_bytes = total_bytes
        self._limit = limit
        self._bytes = 0
        self._by_payer: Counter[Payer] = Counter()
        self._closed = False
        self._connections: dict[str, _Connection] = {}
        self._kept_out: dict[str, None] = {}  # connections that have nothing, and wait for room in all

    @property
    def connections(self) -> int:
        """How many have calls here."""
        return len(self._connections)

    async def enter(
        self, peer: str, payer: Payer, *, patient: bool = False, turn: asyncio.Future[None] | None = None
    ) -> "Place":
        """Wait for room, in the order of arrival: if that is for all connections to make, no longer than a moment
        unless `patient`. Raises Draining once closed, TooManyCalls.

        Args:
            peer: the connection.
            payer: who it counts as.
            turn: what is waited for, which may be cancelled.
        """
        if self._closed:
            raise Draining
        connection = self._connections.setdefault(peer, _Connection())
        place = Place(self, peer, payer)
        connection.places += 1
        connection.waiting[place] = turn = turn or asyncio.get_running_loop().create_future()
        self._admit(peer)
        try:
            if peer not in self._kept_out or patient:
                await turn
            else:
                async with asyncio.timeout(WAIT_SECONDS):
                    await turn
        except TimeoutError:
            place.leave()
            raise TooManyCalls(self._limit, "", self._total_bytes or 0) from None
        except BaseException:  # cancelled, perhaps just when its turn came; or closed
            place.leave()
            raise
        return place

    def enter_now(self, peer: str, payer: Payer) -> "Place | None":
        """The same where nobody has to wait. None: somebody has to, or it is closed."""
        connection = self._connections.get(peer) or _Connection()
        if self._closed or connection.waiting or self._kept_out or not self._has_room(connection, payer):
            return None
        self._connections[peer] = connection
        place = Place(self, peer, payer)
        connection.places += 1
        place.resize(self._request_bytes)
        return place

    def close(self) -> None:
        """Let nobody in any more: whoever waits is told Draining."""
        self._closed = True
        for connection in self._connections.values():
            for turn in connection.waiting.values():
                if not turn.done():
                    turn.set_exception(Draining())
            connection.waiting.clear()

    def add(self, place: "Place", size: int) -> None:
        """Note that a call takes up so many bytes more; if they are fewer, let the next ones in."""
        self._connections[place.peer].bytes += size
        self._bytes += size
        self._by_payer[place.payer] += size
        if size < 0:
            self._admit(place.peer)
            while self._kept_out and self._has_total_room():
                self._admit(next(iter(self._kept_out)))

    def remove(self, place: "Place") -> None:
        """Forget a place, and its connection if that has no other."""
        connection = self._connections[place.peer]
        connection.waiting.pop(place, None)
        if not self._by_payer[place.payer]:
            del self._by_payer[place.payer]
        connection.places -= 1
        if not connection.places:
            del self._connections[place.peer]
            self._kept_out.pop(place.peer, None)

    def _admit(self, peer: str) -> None:
        connection = self._connections[peer]
        while connection.waiting:
            place = next(iter(connection.waiting))
            if not self._has_room(connection, place.payer):
                break
            turn = connection.waiting.pop(place)
            if not turn.done():
                place.resize(self._request_bytes)
                turn.set_result(None)
        if connection.waiting and not connection.bytes:
            self._kept_out[peer] = None
        else:
            self._kept_out.pop(peer, None)

    def _has_room(self, connection: "_Connection", payer: Payer) -> bool:
        if not connection.bytes:
            return self._has_total_room() or not self._by_payer[payer]
        return (
            connection.bytes + self._request_bytes <= self._connection_bytes
            and self._bytes + self._request_bytes <= self._connection_bytes * FULL_CONNECTIONS
            and self._has_total_room()
        )

    def _has_total_room(self) -> bool:
        return self._total_bytes is None or self._bytes + self._request_bytes <= self._total_bytes


class Place:
    """What one call takes up, from when it was let in until it leaves."""

    __slots__ = ("_admission", "_left", "payer", "peer", "size")

    def __init__(self, admission: Admission, peer: str, payer: Payer) -> None:
        self.peer = peer
        self.payer = payer
        self.size = 0
        self._admission = admission
        self._left = False

    def resize(self, size: int) -> None:
        """Say how many bytes it takes up from now on."""
        grown, self.size = size - self.size, size
        self._admission.add(self, grown)

    def leave(self, _: object = None) -> None:
        """Make room for others. May be called twice."""
        if not self._left:
            self._left = True
            self.resize(0)
            self._admission.remove(self)


class _Connection:
    def __init__(self) -> None:
        self.places = 0
        self.bytes = 0
        self.waiting: dict[Place, asyncio.Future[None]] = {}  # in the order of arrival
