"""The client: reads, writes, transactions, watches and history of one namespace."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, TypeVar, overload

from . import codec, convert, listing, model, pipelined, requests, server_status
from .arguments import built
from .base import Base
from .cell import MISSING, Cell
from .checkpoints import Checkpoints
from .errors import ComityError
from .health import wait_until_serving
from .leases.calls import Leases
from .leases.guard import Guard, OfLease, guard_of
from .leases.ttl import living_by
from .namespaces import Namespaces
from .operations import Condition, Increment, Operation
from .request_ids import RequestId
from .server_status import ServerStatus
from .snapshot import Reading
from .transaction import Transaction, run
from .v1 import server_pb2, state_pb2
from .watch import Watch

__all__ = ["Client"]

T = TypeVar("T")


class Client(Checkpoints, Leases, Namespaces, Base):
    """Shared state in one namespace of a server. Made by `comity.connect`; an async context manager.

    One client works from any number of event loops and threads, and in a process that forked before it connected.

    Every method takes `timeout`: the seconds above 0 that a call may take, retries included; the client's unless given.
    Calls are made again while the server cannot be reached; a write carries a request id, so that it is applied once.

    Every method raises, of the tree in `comity.errors`: InvalidArgument, Unavailable, DeadlineExceeded, Internal,
    PermissionDenied, Unauthenticated, ResourceExhausted, RateLimited, Unimplemented; RuntimeError once the client is
    closed; ValueError for a `timeout` that is not above 0 and finite. What else a method raises is said there.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of the running event loop; end the calls and watches that use them. Nothing more can be
        called on the client, or on those that `with_options` and `fork` made of it. Closing twice is no error.

        Leases are kept alive no longer, but not revoked: each lives for as long as it has left.

        A client that was used from several event loops is closed in each; else those connections end with their loop.
        """
        await self._calls.close()

    # Reads

    async def get(self, key: str, *, revision: int = 0, timeout: float | None = None) -> model.Entry | None:
        """The entry of a key, now or at an earlier revision; None if it is absent.

        revision: 0 is the newest. Raises Compacted below the floor, OutOfRange above the newest.
        """
        return (await self._ask(pipelined.Get(self.namespace, key, revision), timeout))[1]

    def list(
        self,
        prefix: str = "",
        *,
        revision: int = 0,
        page_size: int = 0,
        keys_only: bool = False,
        timeout: float | None = None,
    ) -> listing.Listing:
        """The entries under a prefix, in the order of keys, all at one revision: `async for entry in state.list("a/")`.

        revision: 0 is the newest when the first page is read. Raises Compacted and OutOfRange as `get` does.
        page_size: the most entries a call to the server brings; 0 is the server's choice, 1,000 its limit.
        keys_only: leave the values out.
        timeout: of each page.
        """
        request = built(
            state_pb2.ListRequest,
            namespace=self.namespace,
            prefix=prefix,
            revision=revision,
            page_size=page_size,
            keys_only=keys_only,
        )
        return listing.Listing(self._calls, request, self._timeout(timeout))

    def history(
        self,
        prefix: str = "",
        *,
        author: str = "",
        from_revision: int = 0,
        to_revision: int = 0,
        newest_first: bool = True,
        page_size: int = 0,
        keys_only: bool = False,
        previous: bool = False,
        timeout: float | None = None,
    ) -> listing.HistoryListing:
        """The commits between two revisions: `async for commit in state.history("agents/")`.

        prefix: only commits that changed keys under it, with only those events.
        author: only commits of this author; empty: of all.
        from_revision, to_revision: the oldest and the newest to show; 0 is the oldest kept, and the newest there is.
            Raises Compacted at or below the floor, also if it passes a page meanwhile; OutOfRange for a to_revision
            above the newest.
        newest_first: False: the oldest first.
        page_size: the most commits a call to the server brings; 0 is the server's choice, 1,000 its limit.
        keys_only: leave the values out.
        previous: with the entry before each event.
        timeout: of each page.
        """
        request = requests.history(
            self.namespace,
            prefix,
            author=author,
            from_revision=from_revision,
            to_revision=to_revision,
            newest_first=newest_first,
            page_size=page_size,
            keys_only=keys_only,
            previous=previous,
        )
        return listing.HistoryListing(self._calls, request, self._timeout(timeout))

    def blame(
        self,
        prefix: str = "",
        *,
        revision: int = 0,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> listing.BlameListing:
        """Who wrote each key under a prefix last, when and why: `async for attribution in state.blame("agents/")`. Also
        of commits that the history has no more.

        revision, page_size, timeout: as of `list`.
        """
        request = built(
            state_pb2.BlameRequest, namespace=self.namespace, prefix=prefix, revision=revision, page_size=page_size
        )
        return listing.BlameListing(self._calls, request, self._timeout(timeout))

    def watch(
        self,
        prefix: str = "",
        *,
        key: str | None = None,
        from_revision: int = 0,
        epoch: str = "",
        initial: bool = False,
        types: Sequence[model.EventType] | None = None,
        previous: bool = False,
        progress_interval: float | None = None,
        resync: bool = True,
        on_connection: Callable[[ComityError | None], None] | None = None,
        timeout: float | None = None,
    ) -> Watch:
        """The changes under a prefix, or of one key, as they happen: `async for event in state.watch("agents/")`.

        It reconnects, and goes on where it was, by itself: in order, without gaps, each event once. What it does where
        the history that it needs is gone, `Watch` says.

        key: watch this key instead of a prefix.
        from_revision: the first revision to see; 0: what follows from now on.
        epoch: of the history that from_revision is of, as a watch, a list, a transaction or `namespace_info` said it. A
            history that has another one by now is one that is gone. Empty: not checked.
        initial: begin with a Resync, the whole present state, and go on from there. Not with from_revision.
        types: only events of these types; None: all.
        previous: with the entry before each event.
        progress_interval: seconds, at least 0.1, between signs of life of a quiet server; None: 10. A stream that was
            silent for three of them is opened anew.
        resync: False: raise Compacted instead of yielding a Resync.
        on_connection: called with the error once the stream is lost, and with None once it is open again. What it
            raises ends the wait for the next event.
        timeout: for how long to try to open the stream at first, and to read the state for a Resync.

        Raises TypeError for a key with a prefix, for initial with from_revision, for epoch without it; ValueError for a
        progress_interval below 0.1. What the stream raises, `Watch` says.
        """
        return Watch(
            self._calls,
            self.namespace,
            prefix,
            key=key,
            from_revision=from_revision,
            epoch=epoch,
            initial=initial,
            types=types,
            previous=previous,
            progress_interval=progress_interval,
            resync=resync,
            timeout=self._timeout(timeout),
            on_connection=on_connection,
        )

    # Writes

    async def put(
        self,
        key: str,
        value: object,
        *,
        content_type: str | None = None,
        if_version: int | None = None,
        if_revision: int | None = None,
        return_previous: bool = False,
        lease: OfLease | None = None,
        ttl: float | None = None,
        guard: Guard | None = None,
        message: str = "",
        request_id: RequestId | None = None,
        timeout: float | None = None,
    ) -> model.PutResult:
        """Write a key.

        value: bytes are stored as they are; everything else as JSON. `comity.codec.encode` says more.
        content_type: the media type to store it under, instead of application/octet-stream or application/json. A str
            with one that is not JSON, such as text/plain, is stored as UTF-8.
        if_version, if_revision: write only if the key has this version, this mod_revision; 0: only if it is absent.
            Raises Conflict.
        return_previous: answer with the entry that was overwritten.
        lease: the key lives by this `Lease`, or the lease of this id: it is deleted when that ends. None: by none, also
            if it did before. Raises LeaseNotFound if it has ended; LeaseLost if that is known here.
        ttl: the key lives so many seconds unless it is written again: by a lease of its own, which the answer names.
            `keep_alive` keeps it alive. Bounds: as of `grant_lease`.
        guard: write only while this lease lives, a `Lease` or a LeaseGuard. Raises LeaseLost.
        message: why, for the history.
        request_id: instead of the client's own, to repeat a write that another process may have made. Raises
            InvalidArgument (REQUEST_ID_REUSED) if it was another write's; FailedPrecondition (REQUEST_ID_FORGOTTEN) if
            the server does not remember it any more.

        Raises TypeError for a value that JSON cannot hold; ValueError for NaN, infinities and text that is not Unicode.
        TypeError for a lease and a ttl at once; ValueError for a lease of another namespace.
        """
        data, content_type = codec.encode(value, content_type)
        lease_id, micros = living_by(lease, ttl, self.namespace)
        asked = pipelined.Put(
            self.namespace,
            key,
            data,
            content_type,
            if_version,
            if_revision,
            return_previous,
            lease_id,
            micros,
            guard_of(guard, self.namespace),
        )
        return await self._ask(asked, timeout, message, request_id)

    async def delete(
        self,
        key: str | None = None,
        *,
        prefix: str | None = None,
        if_version: int | None = None,
        if_revision: int | None = None,
        return_previous: bool = False,
        guard: Guard | None = None,
        message: str = "",
        request_id: RequestId | None = None,
        timeout: float | None = None,
    ) -> model.DeleteResult:
        """Delete a key, or all keys under a prefix (the empty prefix: every key). What is not there is no error.

        if_version: of a key only: delete only if it has this version. Raises Conflict.
        if_revision: of a key: only if its mod_revision is this; of a prefix: only if nothing under it changed after
            this revision. Raises Conflict; for a prefix also Compacted below the floor, OutOfRange above the newest.
        return_previous: answer with the entries that were deleted, up to 1 MiB of them.
        guard, message, request_id: as of `put`.

        Raises TypeError unless given either a key or a prefix.
        """
        guard = guard_of(guard, self.namespace)
        asked = pipelined.Delete(self.namespace, key, prefix, if_version, if_revision, return_previous, guard)
        return await self._ask(asked, timeout, message, request_id)

    async def increment(
        self,
        key: str,
        by: int = 1,
        *,
        guard: Guard | None = None,
        message: str = "",
        request_id: RequestId | None = None,
        timeout: float | None = None,
    ) -> model.IncrementResult:
        """Add to a whole number that a key holds as JSON; an absent key counts as 0. No addition is lost, and none
        waits for another.

        by: may be negative, or 0.
        guard, message, request_id: as of `put`.

        Raises FailedPrecondition (NOT_A_NUMBER) where the key holds no whole number, or the sum is past 2^53-1;
        TypeError for what is no whole number.
        """
        if isinstance(by, bool) or not isinstance(by, int):
            raise TypeError(f"by must be a whole number, not {type(by).__name__}")
        done = await self.transact(
            then=[Increment(key, by)], guard=guard, message=message, request_id=request_id, timeout=timeout
        )
        (result,) = done.results
        assert isinstance(result, model.IncrementResult)
        return result

    @overload
    async def transact(
        self,
        function: Callable[[Transaction], Awaitable[T]],
        *,
        guard: Guard | None = None,
        message: str = "",
        timeout: float | None = None,
    ) -> T: ...

    @overload
    async def transact(
        self,
        function: Callable[[Transaction], T],
        *,
        guard: Guard | None = None,
        message: str = "",
        timeout: float | None = None,
    ) -> T: ...

    @overload
    async def transact(
        self,
        *,
        conditions: Sequence[Condition] = (),
        then: Sequence[Operation] = (),
        otherwise: Sequence[Operation] = (),
        guard: Guard | None = None,
        message: str = "",
        request_id: RequestId | None = None,
        timeout: float | None = None,
    ) -> model.TransactionResult: ...

    async def transact(
        self,
        function: Callable[[Transaction], Any] | None = None,
        *,
        conditions: Sequence[Condition] = (),
        then: Sequence[Operation] = (),
        otherwise: Sequence[Operation] = (),
        guard: Guard | None = None,
        message: str = "",
        request_id: RequestId | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Change several keys at once, or none of them. Takes a function, or conditions and operations.

        function: called with a `Transaction`, async or not; it reads from one revision and says what to write. It is
            run again, after a short wait, when something that it read has changed meanwhile, so it should do nothing
            else that lasts. What it returns is returned; what it raises is raised, and nothing is written. Once
            `timeout` has passed since the first run it is not run again: raises Conflict. (Each call that it makes has
            the whole timeout for itself, so that a function may take its time.)
        conditions, then, otherwise: what must hold, what to do if all of it does, and what to do if not. A transaction
            whose conditions fail is no error: the result says so, with what was found instead. Raises Compacted and
            OutOfRange for the revision of an `unchanged_since`.
        guard: as of `put`; also where nothing is written, after the function has read.
        message: why, for the history.
        request_id: as of `put`; of the form with operations only.

        Raises FailedPrecondition where a key to increment holds no whole number, or the sum is past 2^53-1. Raises
        TypeError for both forms at once; and TypeError and ValueError for the values of operations as `put` does.
        """
        if function is not None:
            if not callable(function):
                raise TypeError(f"function must take a Transaction, not be of type {type(function).__name__}")
            if conditions or then or otherwise or request_id is not None:
                raise TypeError("transact takes either a function, or conditions and operations")
            reading = self._reading(self._timeout(timeout))

            async def commit(
                request: state_pb2.TransactRequest, message: str, timeout: float
            ) -> state_pb2.TransactResponse:
                return await self._transact(request, message, timeout, guard=guard)

            guard_of(guard, self.namespace)
            return await run(reading, commit, function, message, guarded=guard is not None)
        request = requests.transact(self.namespace, conditions, then, otherwise)
        return convert.transaction_result(await self._transact(request, message, timeout, request_id, guard))

    def _reading(self, timeout: float) -> Reading:
        async def get(key: str, revision: int) -> tuple[int, model.Entry | None]:
            return await self._ask(pipelined.Get(self.namespace, key, revision), timeout)

        return Reading(
            get,
            lambda prefix, revision: self.list(prefix, revision=revision, timeout=timeout),
            timeout,
            self._calls.turns.contender(self.namespace, timeout),
            self.namespace,
        )

    async def _transact(
        self,
        request: state_pb2.TransactRequest,
        message: str,
        timeout: float | None,
        request_id: RequestId | None = None,
        guard: Guard | None = None,
    ) -> state_pb2.TransactResponse:
        asked = pipelined.Transact(self.namespace, request, guard_of(guard, self.namespace))
        return await self._ask(asked, timeout, message, request_id)

    @overload
    def cell(self, key: str, type: type[T], *, default: T = MISSING) -> Cell[T]: ...

    # For what is a type to people and pydantic but not to Python: `dict[str, int] | None`, Annotated, Literal.
    @overload
    def cell(self, key: str, type: Any, *, default: Any = MISSING) -> Cell[Any]: ...

    def cell(self, key: str, type: Any, *, default: Any = MISSING) -> Cell[Any]:
        """One key that holds one value of one type: `state.cell("budget", Budget, default=Budget(100))`.

        type: bytes; or int, float, str, bool, None, Any, list, tuple, dict with str keys, unions, Literal, Enum,
            datetime, date, UUID, dataclasses and pydantic models, within each other. What is stored must be just that
            (the str "5" is no int), but for a whole number where a float is due; a model says itself how strict it is.
        default: the value of an absent key. Without it an absent key raises NotFound.

        Raises TypeError for a type that cannot be held.
        """
        return Cell(self, key, type, default)

    # The server

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Return when the server can be reached and says that it serves.

        Raises Unavailable or DeadlineExceeded if that is not so within `timeout` seconds (the client's unless given).
        """
        await wait_until_serving(self._calls, self._timeout(timeout))

    async def server_status(self, *, timeout: float | None = None) -> ServerStatus:
        """How the server stands that answers, and what it has done since its start. Of several servers, or processes on
        one address, each has its own.

        Raises PermissionDenied for who may not administer every namespace.
        """
        request = server_pb2.GetStatusRequest()
        response = await self._calls.read(lambda to: to.server.GetStatus, request, self._timeout(timeout))
        return server_status.from_message(response.status)
