"""Work that goes from one agent to another with all that belongs to it, and what becomes of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from comity.arguments import expect
from comity.checks import wait_of
from comity.client import Client
from comity.errors import DecodeError, NotFound
from comity.leases.lease import Lease
from comity.model import Entry
from comity.recipes import Item
from comity.transaction import Transaction

from . import layout
from .awaited import Awaited
from .errors import HandoffFailed
from .message import UNREADABLE, Also, Message, called
from .text import storable

__all__ = ["HANDOFF", "SENT", "Handoff", "HandoffMessage", "HandoffStatus", "died", "is_record"]

HANDOFF: Final = "handoff"  # the kind of its envelope
REASON_LENGTH: Final = 1_000
SENT, TAKEN, DONE, REFUSED, DEAD = "sent", "taken", "done", "refused", "dead"


@dataclass(frozen=True, slots=True)
class HandoffStatus:
    """What has become of a handoff up to now."""

    status: str  # "sent", "taken", "done", "refused", or "dead": it was tried too often
    by: str  # who took it last; empty: nobody yet
    incarnation: int  # of whoever took it last; 0: nobody yet
    attempts: int  # how often it was taken
    result: Any  # once it is done
    reason: str  # once it is refused

    @classmethod
    def of(cls, entry: Entry) -> "HandoffStatus":
        value = entry.value
        record = value if isinstance(value, dict) else {}
        return cls(
            status=str(record.get("status", "")),
            by=str(record.get("by", "")),
            incarnation=_whole(record.get("incarnation")),
            attempts=_whole(record.get("attempts")),
            result=record.get("result"),
            reason=str(record.get("reason", "")),
        )

    @property
    def is_final(self) -> bool:
        return self.status in (DONE, REFUSED, DEAD)


class HandoffMessage(Message):
    """A handoff, as the one who has taken it holds it: `message.context` is what was handed over.

    It stays with whoever sent it to know that it was taken, by whom, and what came of it.
    """

    def __init__(self, item: Item, state: Client, name: str, lease: Lease) -> None:
        super().__init__(item)
        self._state = state
        self._name = name
        self._lease = lease

    @property
    def context(self) -> Any:
        """All that was handed over."""
        return self.body

    @property
    def handoff_id(self) -> str:
        """The id that the sender knows it by."""
        return str(self._envelope.get("id", ""))

    async def done(self, result: object = None, also: Also | None = None, *, message: str = "") -> Any:
        """It is done, once and for all, and the sender is told the result, which is what JSON can hold.

        also, message: as of `ack`.
        """
        return await self._finish({"status": DONE, "result": result}, also, message)

    async def ack(self, also: Also | None = None, *, message: str = "") -> Any:
        """As `done`, without a result."""
        return await self.done(also=also, message=message)

    async def refuse(self, reason: str) -> None:
        """It cannot be done, by nobody: the sender is told so, and it is not tried again."""
        expect("reason", str, reason)
        await self._finish({"status": REFUSED, "reason": storable(reason)[:REASON_LENGTH]})

    async def take(self) -> bool:
        """Let the sender know who has it. False: the sender has withdrawn it, and nothing is to be done."""

        async def change(tx: Transaction) -> bool:
            entry = await tx.get(self._key)
            if entry is None or not _tells_of(entry, self._item):
                return False
            if HandoffStatus.of(entry).status in (DONE, REFUSED):  # a dead one may be put back
                return False
            tx.put(self._key, {**entry.value, "status": TAKEN, **self._by()})
            return True

        return await self._state.transact(change, message=f"{self._name} takes a handoff", guard=self._lease)

    @property
    def _key(self) -> str:
        return layout.handoff(self.sender, self.handoff_id)

    def _by(self) -> dict[str, Any]:
        return {"by": self._name, "incarnation": self._lease.fence, "attempts": self.attempts}

    async def _finish(self, outcome: dict[str, Any], also: Also | None = None, message: str = "") -> Any:
        async def both(tx: Transaction) -> Any:
            entry = await tx.get(self._key)
            if entry is not None and _tells_of(
                entry, self._item
            ):  # else the sender wants to know nothing of it any more
                tx.put(self._key, {**entry.value, **self._by(), **outcome})
            return await called(also, tx)

        return await self._item.ack(both, message=message)


class Handoff:
    """A handoff, as the one who sent it sees it. Made by `Agent.handoff` and `Agent.handoffs`."""

    def __init__(self, state: Client, awaited: Awaited, sender: str, id: str, *, keep: bool) -> None:
        self.id = id
        self._state = state
        self._awaited = awaited
        self._key = layout.handoff(sender, id)
        self._keep = keep
        self._final: HandoffStatus | None = None

    def __repr__(self) -> str:
        return f"<comity.agents.Handoff {self.id}>"

    async def status(self) -> HandoffStatus:
        """What has become of it up to now. Raises NotFound if it was withdrawn or forgotten."""
        if self._final is not None:
            return self._final
        entry = await self._state.get(self._key)
        if entry is None:
            raise self._unknown()
        return HandoffStatus.of(entry)

    async def taken(self, timeout: float | None = None) -> HandoffStatus:
        """Wait until somebody has taken it. Raises as `result` does, but for what comes of it afterwards."""
        async with asyncio.timeout(wait_of(timeout)):
            return await self._until(lambda status: status.status != SENT)

    async def result(self, timeout: float | None = None) -> Any:
        """Wait until it is done, and return the result.

        timeout: seconds to wait at most; None: for ever.

        Raises HandoffFailed if it was refused, or has become a dead letter; TimeoutError; and NotFound if it was
        withdrawn. One that was sent without an id of its own is forgotten in the store with its result.
        """
        seconds = wait_of(timeout)
        if self._final is None:
            async with asyncio.timeout(seconds):
                final = await self._until(lambda status: status.is_final)
            self._final = final
            if not self._keep:
                await self._state.delete(self._key, message="the result of a handoff was read")
        final = self._final
        if final.status == REFUSED:
            raise HandoffFailed(
                f"{final.by or 'the receiver'} has refused it: {final.reason}",
                reason="REFUSED",
                metadata={"id": self.id, "by": final.by, "attempts": str(final.attempts)},
            )
        return final.result

    async def forget(self) -> None:
        """Forget in the store what has become of it. If it is not done yet, nobody will do it who takes it from now
        on; who has taken it can finish it, and the sender is not told. Its id can be given to another one at once."""
        await self._state.delete(self._key, message="a handoff is withdrawn")

    async def _until(self, holds: Callable[[HandoffStatus], bool]) -> HandoffStatus:
        entry = await self._awaited.until(self._key, lambda entry: holds(HandoffStatus.of(entry)))
        if entry is None:
            if self._final is not None:  # somebody else who waited was given the result
                return self._final
            raise self._unknown()
        status = HandoffStatus.of(entry)
        if status.status == DEAD:
            raise HandoffFailed(
                f"it was tried {status.attempts} times, the last time by {status.by or 'nobody'}, and given up",
                reason="DEAD",
                metadata={"id": self.id, "by": status.by, "attempts": str(status.attempts)},
            )
        return status

    def _unknown(self) -> NotFound:
        why = "it was withdrawn, or its result was read"
        return NotFound(f"there is no handoff {self.id!r}: {why}", metadata={"id": self.id})


async def died(tx: Transaction, item: Item) -> None:
    """Let the sender know, along with it, that this becomes a dead letter: if it is a handoff, and not done by now."""
    try:
        message = Message(item)
        if message._envelope.get("kind") != HANDOFF:
            return
        key = layout.handoff(message.sender, str(message._envelope.get("id", "")))
        entry = await tx.get(key)
        if entry is not None and _tells_of(entry, item) and not HandoffStatus.of(entry).is_final:
            tx.put(key, {**entry.value, "status": DEAD})
    except UNREADABLE:
        return


def is_record(entry: Entry) -> bool:
    """Whether it says what has become of a handoff, and not something else that somebody has written there."""
    try:
        record = entry.value
    except DecodeError:
        return False
    return isinstance(record, dict) and isinstance(record.get("status"), str)


def _tells_of(entry: Entry, item: Item) -> bool:
    """Whether the record is of what this item holds: not of something that was sent later, by an id that its sender had
    withdrawn. Raises TypeError if it is no record."""
    record = entry.value
    if not isinstance(record, dict):
        raise TypeError(f"the value of {entry.key!r} is no record of a handoff")
    return (record.get("queue", item.queue), record.get("item", item.id)) == (item.queue, item.id)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
