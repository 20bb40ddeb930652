"""A queue of work: each item is done by one consumer, and none is lost where one dies."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

from comity import recipes
from comity.arguments import expect
from comity.cleanup import clean_up
from comity.model import Entry
from comity.sync.client import Client
from comity.sync.holding import Holding
from comity.sync.lease import Lease
from comity.sync.thread import Call, run
from comity.sync.transaction import Transaction, plain
from comity.sync.waiting import waiting

from .inner import inner

__all__ = ["Item", "Queue"]

T = TypeVar("T")


class Item(Holding):
    """One item of a queue, claimed by this process: as `comity.recipes.Item`."""

    _async: recipes.Item

    def __init__(self, item: recipes.Item) -> None:
        self._async = item
        self.id = item.id
        self.entry: Entry = item.entry
        self.tries = item.tries
        self._lease = Lease(item.lease)

    @property
    def lease(self) -> Lease:
        """What the claim lives by."""
        return self._lease

    @property
    def queue(self) -> str:
        """The name of the queue that it was claimed from."""
        return self._async.queue

    @property
    def value(self) -> Any:
        """What was put. Raises DecodeError as `Entry.value` does."""
        return self._async.value

    @property
    def settled(self) -> bool:
        """Whether it was acknowledged or given back."""
        return self._async.settled

    @overload
    def ack(self, *, message: str = "") -> None: ...

    @overload
    def ack(self, function: Callable[[Transaction], T], *, message: str = "") -> T: ...

    def ack(self, function: Callable[[Transaction], Any] | None = None, *, message: str = "") -> Any:
        """It is done, and leaves the queue: as `comity.recipes.Item.ack`. The function runs in this thread."""
        if function is None:
            return run(self._async.ack(message=message))
        call = Call[Any]()
        return call.run(self._async.ack(call.here(plain(function)), message=message))

    nack = waiting(recipes.Item.nack)
    give_back = waiting(recipes.Item.give_back)
    close = waiting(recipes.Item.close)


class Queue:
    """A queue that all who name it share: as `comity.recipes.Queue`. One object may be used by many threads."""

    def __init__(
        self,
        state: Client,
        name: str,
        ttl: float = 10.0,
        *,
        tries: int = 5,
        owner: str | None = None,
        lease: Lease | None = None,
    ) -> None:
        if lease is not None:
            expect("lease", Lease, lease)
        held = None if lease is None else lease._async
        self._async = recipes.Queue(inner(state), name, ttl, tries=tries, owner=owner, lease=held)
        self.name = self._async.name
        self.tries = tries

    def __repr__(self) -> str:
        return repr(self._async)

    def put(
        self, value: object, priority: int = 0, *, content_type: str | None = None, tx: Transaction | None = None
    ) -> str:
        """Add an item, and return its id: as `comity.recipes.Queue.put`."""
        inside = None if tx is None else tx._async
        return run(self._async.put(value, priority, content_type=content_type, tx=inside))

    def get(self, timeout: float | None = None) -> Item:
        """Claim the first free item; wait for one if there is none: as `comity.recipes.Queue.get`."""
        return Item(run(self._async.get(timeout)))

    def try_get(self) -> Item | None:
        """Claim the first free item; None if there is none now."""
        item = run(self._async.try_get())
        return None if item is None else Item(item)

    @contextlib.contextmanager
    def claim(self, timeout: float | None = None) -> Iterator[Item]:
        """A block that has an item: acknowledged at its end, given back if it raises. KeyboardInterrupt and the like
        count as no try.

        Raises LeaseLost at the end if the claim was lost, and what `get` and `Item.ack` raise.
        """
        item = self.get(timeout)
        try:
            yield item
            if not item.settled:
                item.ack()
        except BaseException as error:
            if not item.settled:
                run(clean_up(item._async.nack(counts=isinstance(error, Exception))))
            raise
        finally:
            item.close()

    size = waiting(recipes.Queue.size)
    dead = waiting(recipes.Queue.dead)
    requeue = waiting(recipes.Queue.requeue)
    purge = waiting(recipes.Queue.purge)
