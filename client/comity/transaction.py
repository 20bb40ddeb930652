"""Transactions as functions: read from one revision, say what to write, run again if somebody was faster."""

import asyncio
import builtins
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any

from . import convert, requests
from .arguments import expect
from .errors import ComityError, Conflict, InvalidArgument, OutOfRange
from .leases.guard import OfLease
from .leases.ttl import living_by
from .model import Entry
from .retry import Backoff
from .snapshot import Reading, Snapshot
from .turns import Contender, Left
from .v1 import state_pb2
from .writes import Writes

__all__ = ["Entries", "Transaction", "run"]

OPERATIONS = 1_000  # of a transaction, unless the server is set otherwise
KEY_SHOWN = 64  # characters of a key that a message shows
ARGUMENT = re.compile(
    r"(?P<list>conditions|then)\[(?P<place>\d+)\]\.(?:(?P<kind>put|delete|increment)\.)?(?P<field>\w+)"
)  # paths in a request

Commit = Callable[[state_pb2.TransactRequest, str, float], Awaitable[state_pb2.TransactResponse]]


class Entries:
    """Entries that a transaction function reads. Made by `Transaction.list`.

        entries = await tx.list("agents/")
        async for entry in tx.list("agents/"): ...

    Read all at once, when they are asked for: with the writes that were noted until then.
    """

    def __init__(self, read: Callable[[], Coroutine[Any, Any, list[Entry]]]) -> None:
        self._read = read

    def __await__(self) -> Generator[Any, None, list[Entry]]:
        return self._read().__await__()

    async def __aiter__(self) -> AsyncIterator[Entry]:
        for entry in await self._read():
            yield entry


class Transaction:
    """What a transaction function reads and writes with. Of use only until the function has returned.

    All reads show one revision, that of the first read, and the function's own writes. Writes are only noted; they are
    applied together when the function has returned, if nothing that it read has changed meanwhile.

    A function may read up to 1,000 keys and prefixes, and make up to 1,000 writes of 4 MiB in all, unless the server is
    set otherwise: `transact` raises InvalidArgument beyond. What `get` and `delete` count for is said there.
    """

    def __init__(self, snapshot: Snapshot, namespace: str) -> None:
        self._snapshot = snapshot
        self._namespace = namespace
        self._writes = Writes()
        self._ended = False

    async def get(self, key: str) -> Entry | None:
        """The entry of a key; None if it is absent.

        An entry that the function itself has written has no version, revisions and time yet: they are 0. To read many
        keys, list their prefix: that counts for one, as do then the keys under it for none.
        """
        self._check()
        expect("key", str, key)
        stored = None if self._writes.decides(key) else await self._snapshot.get(key)
        return self._writes.entry(key, stored)

    def list(self, prefix: str = "") -> "Entries":
        """All entries under a prefix, in the order of keys: `await tx.list("a/")`, or `async for entry in
        tx.list("a/")`. Entries as of `get`."""
        return Entries(lambda: self._list(prefix))

    async def _list(self, prefix: str) -> builtins.list[Entry]:
        self._check()
        return self._writes.entries(prefix, await self._snapshot.list(prefix))

    def put(
        self,
        key: str,
        value: object,
        *,
        content_type: str | None = None,
        lease: OfLease | None = None,
        ttl: float | None = None,
    ) -> None:
        """Write a key. The value is encoded as `Client.put` does it, at once.

        lease, ttl: as of `Client.put`. Keys that are put with a ttl share one lease, and must have the same.

        Raises TypeError and ValueError for a value that cannot be stored, as `Client.put` does; LeaseLost.
        """
        self._check()
        expect("key", str, key)
        lease_id, _ = living_by(lease, ttl, self._namespace)
        self._writes.put(key, value, content_type, lease_id, ttl)

    def delete(self, key: str | None = None, *, prefix: str | None = None) -> None:
        """Delete a key, or all keys under a prefix. What is not there is no error.

        A prefix counts for one write; but one that the function writes under afterwards is deleted key by key, and
        counts for one write a key.

        Raises TypeError unless given either a key or a prefix.
        """
        self._check()
        requests.one_target(key, prefix)
        if key is not None:
            expect("key", str, key)
            self._writes.delete(key)
        if prefix is not None:
            expect("prefix", str, prefix)
            self._writes.delete_prefix(prefix)

    def increment(self, key: str, by: int = 1) -> None:
        """Add to a whole number, without reading it: so it never makes the function run again. Absent counts as 0.

        Raises FailedPrecondition, here or when it is applied, if the key holds no whole number, or the sum is
        past 2^53-1.
        """
        self._check()
        expect("key", str, key)
        expect("by", int, by)
        self._writes.increment(key, by)

    def _check(self) -> None:
        if self._ended:
            raise RuntimeError("the transaction has ended: use what its function is given only inside of the function")


async def run(
    reading: Reading, commit: Commit, function: Callable[[Transaction], Any], message: str, *, guarded: bool
) -> Any:
    """Run the function, and again while it loses against others and the seconds of a call have not passed.

    guarded: something is to be committed even if it writes nothing, since that is where the guard is judged.
    """
    try:
        return await _run(reading, commit, function, message, guarded)
    finally:
        reading.contender.end(None)


async def _run(
    reading: Reading, commit: Commit, function: Callable[[Transaction], Any], message: str, guarded: bool
) -> Any:
    timeout, contender = reading.timeout, reading.contender
    clock = asyncio.get_running_loop().time
    deadline = contender.deadline
    backoff = Backoff(first=0.005, most=0.5)
    snapshot = Snapshot(reading)
    while True:
        tried = clock()
        request = key = None
        handed_on = False
        try:
            result, request = await _attempt(snapshot, reading.namespace, function)
            if request is None:
                if (
                    guarded
                ):  # a lease that lives now did so at the revision that was read, of which nothing else must hold
                    await commit(requests.transact(reading.namespace, (), ()), message, timeout)
                return result
            handed_on = _read_back(request, contender)
            tried = clock()
            response = await commit(request, message, timeout)
        except InvalidArgument as error:
            refused = None if request is None else _refused(request, error)
            if refused is None:
                raise
            if handed_on:  # it may be one too many for what the server is set to
                contender.end(None)
                continue
            raise refused from error
        except OutOfRange as error:
            if request is None and error is not snapshot.gone:
                raise  # the function's own
            lost: ComityError = error
            following = Snapshot(reading)
        else:
            if response.committed:
                contender.end(_left(response) if handed_on else None)
                return result
            lost = _conflict(request, response)
            following = snapshot.moved(response)
            key = request.conditions[response.failed[0].index].key
        now = clock()
        delay = backoff.delay(deadline - now)
        if delay is None:
            raise lost
        if key and key != contender.key:
            waits = contender.is_taken(key)
            left = await contender.lost(key)
            if waits:
                if clock() >= deadline:
                    raise lost
                newer = left is not None and left.revision > response.revision
                snapshot = following.known(key, left) if left and newer else following
                continue
        # What the answer brought is newer than what a read would bring, unless the wait is longer than a call takes.
        snapshot = following if delay <= now - tried else Snapshot(reading)
        await asyncio.sleep(delay)


def _read_back(request: state_pb2.TransactRequest, contender: Contender) -> bool:
    """Have a transaction tell what it leaves at the key whose turn it has, if the next one wants to know."""
    key = contender.key
    if key is None or not contender.wanted() or len(request.then) >= OPERATIONS:
        return False
    request.then.add().get.key = key
    return True


def _left(response: state_pb2.TransactResponse) -> Left:
    """What a transaction left at the key that it has read back."""
    found = response.results[-1].get
    return Left(response.revision, convert.entry(found.entry) if found.HasField("entry") else None)


async def _attempt(
    snapshot: Snapshot, namespace: str, function: Callable[[Transaction], Any]
) -> tuple[Any, state_pb2.TransactRequest | None]:
    """What the function returned, and what is to be committed. Raises OutOfRange if the snapshot is gone."""
    transaction = Transaction(snapshot, namespace)
    try:
        result = function(transaction)
        if inspect.isawaitable(result):
            result = await result
        writes = transaction._writes
        replaced = [entry for prefix in writes.overlapping() for entry in await snapshot.list(prefix)]
    except Exception as error:
        # Whatever the function made of it: what it saw was not the whole state.
        if snapshot.gone is None or error is snapshot.gone:
            raise
        raise snapshot.gone from error
    finally:
        transaction._ended = True
    if snapshot.gone is not None:
        raise snapshot.gone
    if not writes:
        return result, None
    return result, requests.transact(namespace, snapshot.conditions(), list(writes.operations(replaced)))


def _refused(request: state_pb2.TransactRequest, error: InvalidArgument) -> InvalidArgument | None:
    """The refusal in the terms of a function, which knows of no conditions and operations. None: it says nothing of
    them."""
    fields = {violation.field for violation in error.violations}
    if "conditions" in fields:
        why = f"it read {len(request.conditions)} keys and prefixes: list a prefix instead of getting each key under it"
    elif "then" in fields:
        why = f"it made {len(request.then)} writes; a prefix that it deleted and then wrote under counts for each key"
    else:
        message = "; ".join(f"{_argument(request, field)}: {text}" for field, text in error.violations)
        return _said(error, message) if message else None
    return _said(error, f"the function does more than a transaction may ({why}): {error.message}")


def _argument(request: state_pb2.TransactRequest, path: str) -> str:
    """What a function gave, by the path where it stands in the request: `ttl of 'agents/a'`."""
    found = ARGUMENT.fullmatch(path)
    parts = () if found is None else getattr(request, found["list"])
    place = 0 if found is None else int(found["place"])
    if found is None or place >= len(parts):
        return path
    part = getattr(parts[place], found["kind"]) if found["kind"] else parts[place]
    key: str = getattr(part, "key", "") or getattr(part, "prefix", "")
    name = found["field"] if found["field"] in ("key", "prefix") else f"{found['field']} of"
    return f"{name} {key if len(key) <= KEY_SHOWN else key[:KEY_SHOWN] + '…'!r}"


def _said(error: InvalidArgument, message: str) -> InvalidArgument:
    return InvalidArgument(
        message,
        code=error.code,
        reason=error.reason,
        metadata=error.metadata,
        violations=error.violations,
    )


def _conflict(request: state_pb2.TransactRequest, response: state_pb2.TransactResponse) -> Conflict:
    failed = response.failed[0]
    condition = request.conditions[failed.index]
    if condition.HasField("prefix"):
        found = {"prefix": condition.prefix, "changed_revision": str(failed.changed_revision)}
    else:
        current = failed.current
        found = {"key": condition.key, "version": str(current.version), "mod_revision": str(current.mod_revision)}
    return Conflict(
        f"somebody was faster, each time that this was tried: {condition.key or condition.prefix!r} has changed",
        reason="CONFLICT",
        metadata={**found, "revision": str(response.revision)},
    )
