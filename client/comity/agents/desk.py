"""What an agent sends: messages and handoffs."""

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from comity.client import Client
from comity.errors import InvalidArgument
from comity.leases.lease import Lease
from comity.recipes import Queue
from comity.transaction import Transaction

from . import layout
from .awaited import Awaited
from .handoff import HANDOFF, SENT, Handoff, is_record
from .layout import Role
from .message import MESSAGE, Also, called, envelope

__all__ = ["Desk"]


class Desk:
    """Where one agent sends from. What it sends is sent only while its lease lives.

    awaited: by which whoever sends by this, and by other desks, waits for what comes of it.
    """

    def __init__(self, state: Client, name: str, lease: Callable[[], Lease], awaited: Awaited | None = None) -> None:
        self._state = state
        self._name = name
        self._lease = lease
        self._awaited = awaited or Awaited(state, layout.handoffs(name))

    async def send(self, to: str | Role, body: object, *, priority: int, also: Also | None, message: str) -> None:
        """`Agent.send` says what it does."""
        queue = Queue(self._state, layout.inbox(to))

        async def both(tx: Transaction) -> None:
            await queue.put(envelope(MESSAGE, self._name, body), priority, tx=tx)
            await called(also, tx)

        await self._transact(both, message or f"{self._name} sends a message")

    async def handoff(
        self, to: str | Role, context: object, *, id: str | None, priority: int, also: Also | None, message: str
    ) -> Handoff:
        """`Agent.handoff` says what it does."""
        keep = id is not None
        id = uuid.uuid4().hex if id is None else layout.check_name("the id", id)
        queue = Queue(self._state, layout.inbox(to))
        key = layout.handoff(self._name, id)
        whom = {"role": to.name} if isinstance(to, Role) else {"to": to}

        async def both(tx: Transaction) -> None:
            if await tx.get(key) is not None:  # by an earlier incarnation
                return
            item = await queue.put(envelope(HANDOFF, self._name, context, id=id), priority, tx=tx)
            tx.put(key, {"status": SENT, **whom, "queue": queue.name, "item": item})
            await called(also, tx)

        await self._transact(both, message or f"{self._name} hands off")
        return Handoff(self._state, self._awaited, self._name, id, keep=keep)

    async def all(self) -> AsyncIterator[Handoff]:
        """Those that the agent, in whatever incarnation, has sent and not forgotten. What others have written among
        them is passed over."""
        prefix = layout.handoffs(self._name)
        async for entry in self._state.list(prefix):
            id = entry.key.removeprefix(prefix)
            if layout.NAME.fullmatch(id) is not None and is_record(entry):
                yield Handoff(self._state, self._awaited, self._name, id, keep=True)

    async def _transact(self, function: Callable[[Transaction], Any], message: str) -> Any:
        try:
            return await self._state.transact(function, message=message, guard=self._lease())
        except InvalidArgument as error:
            if not any("value" in violation.field for violation in error.violations):
                raise
            raise InvalidArgument(
                f"what is sent does not fit into one value: put what is large under keys of its own, and send their "
                f"names ({error.message})",
                code=error.code,
                reason=error.reason,
                metadata=error.metadata,
                violations=error.violations,
            ) from error
