"""What a plain function reads and writes with in a transaction."""

import builtins
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from comity import transaction
from comity.model import Entry

from .thread import run
from .waiting import delegating, waiting

__all__ = ["Transaction", "plain"]

T = TypeVar("T")


def unchanged(returned: None) -> None:
    return returned


class Transaction:
    """What a transaction function reads and writes with. Of use only until the function has returned.

    All reads show one revision, that of the first read, and the function's own writes. Writes are only noted; they are
    applied together when the function has returned, if nothing that it read has changed meanwhile.

    A function may read up to 1,000 keys and prefixes, and make up to 1,000 writes of 4 MiB in all, unless the server is
    set otherwise: `transact` raises InvalidArgument beyond. What `get` and `delete` count for is said there.
    """

    def __init__(self, transaction: transaction.Transaction) -> None:
        self._async = transaction

    get = waiting(transaction.Transaction.get)

    def list(self, prefix: str = "") -> builtins.list[Entry]:
        """All entries under a prefix, in the order of keys. Entries as of `get`."""
        return run(self._list(prefix))

    async def _list(self, prefix: str) -> builtins.list[Entry]:
        return await self._async.list(prefix)

    put = delegating(transaction.Transaction.put, unchanged)
    delete = delegating(transaction.Transaction.delete, unchanged)
    increment = delegating(transaction.Transaction.increment, unchanged)


def plain(function: Callable[[Transaction], T]) -> Callable[[Any], T]:
    """The same function, as it is called by an asynchronous client."""

    def call(transaction: Any) -> T:
        result = function(Transaction(transaction))
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("a synchronous client takes a plain function: an async one is for comity.Client")
        return result

    return call
