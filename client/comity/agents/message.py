"""What an agent is sent, as the one who has taken it holds it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final

from comity.errors import InvalidArgument
from comity.recipes import Item
from comity.transaction import Transaction

__all__ = ["MESSAGE", "UNREADABLE", "Also", "Message", "called", "envelope"]

MESSAGE: Final = "message"  # the kind of its envelope
UNREADABLE: Final = (InvalidArgument, TypeError, ValueError)  # of what others have sent; the last: also DecodeError

Also = Callable[[Transaction], Any]  # async or not


def envelope(kind: str, sender: str, body: object, **more: object) -> dict[str, Any]:
    """What is put into the queue."""
    return {"kind": kind, "from": sender, **more, "body": body}


class Message:
    """What was sent to an agent, or to its role; taken by this one alone, until it is done or given back.

    If the agent's lease is lost, somebody else may take it, and nothing can be done with it here: LeaseLost. If it is
    done, or was given back already: RuntimeError.
    """

    def __init__(self, item: Item) -> None:
        value = item.value
        self._item = item
        self._envelope: dict[str, Any] = value if isinstance(value, dict) and "body" in value else {"body": value}

    def __repr__(self) -> str:
        return f"<comity.agents.{type(self).__name__} {self.id} from {self.sender or 'nobody'}>"

    @property
    def id(self) -> str:
        """Its id in the queue that it was taken from."""
        return self._item.id

    @property
    def sender(self) -> str:
        """Who has sent it; empty: not said."""
        return str(self._envelope.get("from") or "")

    @property
    def body(self) -> Any:
        """What was sent. Of what was put into the queue without an envelope: all of it."""
        return self._envelope["body"]

    @property
    def attempts(self) -> int:
        """How often it was taken, this time included."""
        return self._item.tries

    @property
    def settled(self) -> bool:
        """It is done, or was given back."""
        return self._item.settled

    async def ack(self, also: Also | None = None, *, message: str = "") -> Any:
        """It is done, once and for all.

        also: as the function of `Client.transact`: what it writes is applied along with it, or neither is. What it
            returns is returned.
        message: why, for the history.
        """
        return await self._item.ack(functools.partial(called, also), message=message)

    async def nack(self, delay: float | None = None, reason: str = "", *, counts: bool = True) -> None:
        """Give it back: somebody may take it again, in `delay` seconds (at least 1; None: at once). If it was tried as
        often as it may be, it becomes a dead letter.

        counts: False: this was no try.
        """
        await self._item.nack(delay, reason, counts=counts)


async def called(also: Also | None, tx: Transaction) -> Any:
    """What the function returns."""
    result = None if also is None else also(tx)
    return await result if inspect.isawaitable(result) else result
