"""Fills a store directly, where it is the state that is measured and not the way to it."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from comity_server.errors import StateError
from comity_server.model import Action, Outcome, Put, Transaction
from comity_server.stores.protocol import Store

T = TypeVar("T")

VALUE = b"v" * 100
GROUP = 1_000  # puts that are one transaction, or transactions that are one group


def key(number: int) -> str:
    return f"agents/{number:08d}"


async def put(store: Store, namespace: str, keys: Iterable[str], value: bytes = VALUE) -> None:
    """Write keys, a thousand in a commit."""
    for batch in _batches(Put(one, value, "application/json") for one in keys):
        await commit(store, namespace, Transaction(then=batch, author="bench"))


async def put_singly(store: Store, namespace: str, keys: Iterable[str], value: bytes = VALUE) -> None:
    """Write keys, each in a commit of its own."""
    puts = (Transaction(then=(Put(one, value, "application/json"),), author="bench") for one in keys)
    for batch in _batches(puts):
        for outcome in await store.commit(namespace, batch):
            if isinstance(outcome, StateError):
                raise outcome


async def commit(store: Store, namespace: str, write: Transaction | Action) -> Outcome:
    """Commit one write. Raises what the store answers as an error."""
    (outcome,) = await store.commit(namespace, [write])
    if isinstance(outcome, StateError):
        raise outcome
    return outcome


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, GROUP)):
        yield batch
