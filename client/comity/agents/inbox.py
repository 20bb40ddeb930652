"""What an agent is sent: a queue of its own, and one that it shares with all of its role."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from comity.cleanup import begun
from comity.client import Client
from comity.leases.lease import Lease
from comity.recipes import Item, Queue

from . import layout
from .handoff import HANDOFF, HandoffMessage, died
from .layout import Role
from .message import UNREADABLE, Message

__all__ = ["Inbox"]

log = logging.getLogger("comity.agents")


class Inbox:
    """Takes what is sent to one agent, or to its role. What it has taken lives by the agent's lease.

    tries: how often something is taken before it becomes a dead letter.
    """

    def __init__(self, state: Client, name: str, role: str, tries: int, lease: Callable[[], Lease]) -> None:
        self._state = state
        self._name = name
        self._addresses: list[str | Role] = [name, Role(role)] if role else [name]
        self._tries = tries
        self._lease = lease
        self._queues: list[Queue] = []

    @contextlib.asynccontextmanager
    async def receive(self, timeout: float | None) -> AsyncIterator[Message]:
        """`Agent.receive` says what it does."""
        async with asyncio.timeout(timeout):
            message = await self._next()
        try:
            yield message
            if not message.settled:
                await message.ack()
        except BaseException as error:
            await message._item.give_back(_why(error), counts=isinstance(error, Exception))
            raise

    async def messages(self) -> AsyncGenerator[Message]:
        """`Agent.inbox` says what it does."""
        while True:
            async with self.receive(None) as message:
                yield message

    async def _next(self) -> Message:
        lease = self._lease()
        while True:
            item = await self._take(lease)
            try:
                if (message := await self._message(item, lease)) is not None:
                    return message
            except BaseException as error:
                await item.give_back(_why(error), counts=isinstance(error, Exception))
                if not isinstance(error, UNREADABLE):
                    raise
                log.warning("%s was sent what cannot be read: %s", self._name, error)

    async def _message(self, item: Item, lease: Lease) -> Message | None:
        """What is sent by it; None: a handoff that was withdrawn."""
        message = Message(item)
        if message._envelope.get("kind") != HANDOFF:
            return message
        handed = HandoffMessage(item, self._state, self._name, lease)
        if await handed.take():
            return handed
        await item.ack()
        return None

    async def _take(self, lease: Lease) -> Item:
        """The first of the agent's own, or else of its role's; wait for one if there is none."""
        if not self._queues:
            self._queues = [
                Queue(self._state, layout.inbox(to), tries=self._tries, lease=lease, on_dead=died)
                for to in self._addresses
            ]
        for queue in self._queues:
            if (item := await queue.try_get()) is not None:
                return item
        waits = [asyncio.create_task(queue.get()) for queue in self._queues]
        taken: Item | None = None
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            taken = next(wait for wait in waits if wait.done()).result()
        finally:
            try:
                await asyncio.shield(begun(_let_go(waits, taken)))
            except asyncio.CancelledError:
                if taken is not None:
                    await taken.give_back(counts=False)
                raise
        return taken


async def _let_go(waits: "list[asyncio.Task[Item]]", taken: Item | None) -> None:
    """End the waits. What they have brought is given back, but for what is taken."""
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)
    for wait in waits:
        if not wait.cancelled() and wait.exception() is None and wait.result() is not taken:
            await wait.result().give_back(counts=False)


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200] if isinstance(error, Exception) else ""
