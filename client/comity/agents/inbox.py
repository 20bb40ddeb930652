"""What an agent is sent: a queue of its own, and one that it shares with all of its role."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from comity.client import Client
from comity.lease import Lease
from comity.recipes.ending import clean_up
from comity.recipes.item import Item
from comity.recipes.queue import Queue

from . import layout
from .handoff import HANDOFF, HandoffMessage
from .layout import Role
from .message import Message

__all__ = ["Inbox"]


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
        except BaseException as error:
            await self._give_back(message, error)
            raise
        else:
            if not message.settled:
                await message.ack()

    async def messages(self) -> AsyncGenerator[Message]:
        """`Agent.inbox` says what it does."""
        while True:
            message = await self._next()
            try:
                yield message
            except BaseException as error:
                await self._give_back(message, error)
                raise
            if not message.settled:
                await message.ack()

    async def _give_back(self, message: Message, error: BaseException) -> None:
        if not message.settled:
            failed = isinstance(error, Exception)
            reason = f"{type(error).__name__}: {error}"[:200] if failed else ""
            await clean_up(message.nack(reason=reason, counts=failed))

    async def _next(self) -> Message:
        lease = self._lease()
        while True:
            item = await self._take(lease)
            message = Message(item)
            if message._envelope.get("kind") != HANDOFF:
                return message
            handed = HandoffMessage(item, self._state, self._name, lease)
            try:
                if await handed.take():
                    return handed
                await item.ack()  # withdrawn
            except BaseException as error:
                await self._give_back(handed, error)
                raise

    async def _take(self, lease: Lease) -> Item:
        """The first of the agent's own, or else of its role's; wait for one if there is none."""
        if not self._queues:
            self._queues = [
                Queue(self._state, layout.inbox(to), tries=self._tries, lease=lease) for to in self._addresses
            ]
        for queue in self._queues:
            if (item := await queue.try_get()) is not None:
                return item
        waits = [asyncio.create_task(queue.get()) for queue in self._queues]
        taken: Item | None = None
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            taken = next(wait for wait in waits if wait.done()).result()
            return taken
        finally:
            await clean_up(_let_go(waits, taken))


async def _let_go(waits: "list[asyncio.Task[Item]]", taken: Item | None) -> None:
    """End the waits. What they have brought is given back, but for what is taken."""
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)
    for wait in waits:
        if not wait.cancelled() and wait.exception() is None and wait.result() is not taken:
            await wait.result().nack(counts=False)
