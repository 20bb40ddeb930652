"""How much of the server's memory the calls of one connection take up, so that no client can take up all of it.

A call counts as the largest request until its own was read, then as its request, and in the end as its answer, until
the client has taken that. Where there is no room a call waits, unread, until others of its connection have made some:
so who sends without an end, or does not read what it asked for, holds up itself.
"""

import asyncio
from typing import Final

from comity_server.errors import Draining

FULL_CONNECTIONS: Final = 16  # when as much as these may hold is taken up, every connection has one call at a time


class Admission:
    """Gives calls their places. Use from one event loop.

    Args:
        connection_bytes: what the calls of one connection may take up; one alone may be larger.
        request_bytes: the size of the largest request.
    """

    def __init__(self, connection_bytes: int, request_bytes: int) -> None:
        self._connection_bytes = connection_bytes
        self._request_bytes = request_bytes
        self._bytes = 0
        self._closed = False
        self._connections: dict[str, _Connection] = {}

    @property
    def connections(self) -> int:
        """How many have calls here."""
        return len(self._connections)

    async def enter(self, peer: str) -> "Place":
        """Wait for room, in the order of arrival. Raises Draining once closed."""
        if self._closed:
            raise Draining
        connection = self._connections.setdefault(peer, _Connection())
        place = Place(self, peer)
        connection.places += 1
        connection.waiting[place] = turn = asyncio.get_running_loop().create_future()
        self._admit(peer)
        try:
            await turn
        except BaseException:  # cancelled, perhaps just when its turn came; or closed
            place.leave()
            raise
        return place

    def close(self) -> None:
        """Let nobody in any more: whoever waits is told Draining."""
        self._closed = True
        for connection in self._connections.values():
            for turn in connection.waiting.values():
                if not turn.done():
                    turn.set_exception(Draining())
            connection.waiting.clear()

    def add(self, peer: str, size: int) -> None:
        """Note that the calls of a connection take up so many bytes more; if they are fewer, let the next ones in."""
        self._connections[peer].bytes += size
        self._bytes += size
        if size < 0:
            self._admit(peer)

    def remove(self, place: "Place") -> None:
        """Forget a place, and its connection if that has no other."""
        connection = self._connections[place.peer]
        connection.waiting.pop(place, None)
        connection.places -= 1
        if not connection.places:
            del self._connections[place.peer]

    def _admit(self, peer: str) -> None:
        connection = self._connections[peer]
        while connection.waiting and self._has_room(connection):
            place = next(iter(connection.waiting))
            turn = connection.waiting.pop(place)
            if not turn.done():
                place.resize(self._request_bytes)
                turn.set_result(None)

    def _has_room(self, connection: "_Connection") -> bool:
        return not connection.bytes or (
            connection.bytes + self._request_bytes <= self._connection_bytes
            and self._bytes + self._request_bytes <= self._connection_bytes * FULL_CONNECTIONS
        )


class Place:
    """What one call takes up, from when it was let in until it leaves."""

    __slots__ = ("_admission", "_left", "peer", "size")

    def __init__(self, admission: Admission, peer: str) -> None:
        self.peer = peer
        self.size = 0
        self._admission = admission
        self._left = False

    def resize(self, size: int) -> None:
        """Say how many bytes it takes up from now on."""
        grown, self.size = size - self.size, size
        self._admission.add(self.peer, grown)

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
