"""The gate of what needs no identity: the health of the server, and reflection."""

import asyncio
from collections import Counter
from typing import Final

from comity_server.access.bounds import Bounds, Meter, address
from comity_server.access.caller import Caller
from comity_server.access.gate import Context, Gate
from comity_server.errors import TooManyCalls

LIMIT: Final = "anybody_calls"
OF_CONNECTION: Final = 100  # a proxy has the streams of many clients on one
OF_ADDRESS: Final = 1_000


class AnybodysGate(Gate):
    """Lets in so many streams of each connection, and of each address, and as many other calls: whose they are is not
    known, each takes some 20 KiB, and up to 64 more of what was sent and is not read, and nothing else bounds how many
    are opened and left so.

    Args:
        bounds: those that hold beside that; None: none do.
    """

    def __init__(self, bounds: Bounds | None = None) -> None:
        super().__init__(bounds=bounds)
        self.open: Counter[tuple[bool, str]] = Counter()
        """Streams, and other calls, by connection and by address."""

    def begin(self, caller: Caller, context: Context, *, stream: bool) -> Meter:
        """Let a call begin. Its end has to be told to what is returned. Raises TooManyCalls, RateLimited."""
        self._hold(context.peer(), stream)
        return super().begin(caller, context, stream=stream)

    def _hold(self, peer: str, stream: bool) -> None:
        held = {(stream, peer): OF_CONNECTION, (stream, address(peer)): OF_ADDRESS}
        for of, most in held.items():
            if self.open[of] >= most:
                raise TooManyCalls(LIMIT, address(peer), most)
        self.open.update(held.keys())
        task = asyncio.current_task()
        assert task is not None

        def leave(_: object) -> None:
            for of in held:
                self.open[of] -= 1
                if not self.open[of]:
                    del self.open[of]

        task.add_done_callback(leave)
