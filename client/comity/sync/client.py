"""The client: reads, writes, transactions, watches and history of one namespace, each waited for."""

from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar, overload

from comity import client, model, requests
from comity.cell import MISSING
from comity.leases.guard import Guard, OfLease
from comity.operations import Condition, Operation
from comity.request_ids import RequestId

from .cell import Cell
from .lease import Lease, Leasing
from .listing import BlameListing, DiffListing, HistoryListing, Listing
from .thread import Call, end_if_unused, run
from .transaction import Transaction, plain
from .waiting import delegating, documented, items, waiting
from .watch import Watch

__all__ = ["Client"]

T = TypeVar("T")

_Async = client.Client


class Client:
    """Shared state in one namespace of a server. Made by `comity.sync.connect`; a context manager.

    One client works from any number of threads, and in a process that forked before it connected. Calls that threads
    make at the same time share messages. A call may be made while an event loop runs in the same thread, and blocks it.

    Every method takes `timeout`, and raises what it does in `comity.Client`. KeyboardInterrupt cancels the call that
    waits; a write may have been applied all the same.
    """

    def __init__(self, client: client.Client) -> None:
        self._async = client

    @property
    def address(self) -> str:
        """Where the server is, as it was said to `comity.sync.connect`: for another process to connect to."""
        return self._async.address

    @property
    def namespace(self) -> str:
        """The namespace that all calls are about."""
        return self._async.namespace

    @property
    def author(self) -> str:
        """Said with every write, for the history."""
        return self._async.author

    @property
    def timeout(self) -> float:
        """Seconds that a call may take, unless it says its own."""
        return self._async.timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; end the calls and watches that use them. Nothing more can be called on the client, or
        on those that `with_options` and `fork` made of it. Closing twice is no error.

        Leases are kept alive no longer, but not revoked: each lives for as long as it has left.
        """
        run(self._async.close())
        end_if_unused()

    @documented(_Async.with_options)
    def with_options(
        self, *, namespace: str | None = None, author: str | None = None, timeout: float | None = None
    ) -> Self:
        return type(self)(self._async.with_options(namespace=namespace, author=author, timeout=timeout))

    # Reads

    get = waiting(_Async.get)
    list = delegating(_Async.list, Listing)
    history = delegating(_Async.history, HistoryListing)
    blame = delegating(_Async.blame, BlameListing)
    # What `on_connection` does, it does in another thread: it must not wait for this client.
    watch = delegating(_Async.watch, Watch)

    # Writes

    put = waiting(_Async.put)
    delete = waiting(_Async.delete)
    increment = waiting(_Async.increment)

    @overload
    def transact(
        self,
        function: Callable[[Transaction], T],
        *,
        guard: Guard | None = None,
        message: str = "",
        timeout: float | None = None,
    ) -> T: ...

    @overload
    def transact(
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

    def transact(
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

        function: called in this thread with a `comity.sync.Transaction`; and again, after a short wait, when something
            that it read has changed meanwhile. The rest is as of `comity.Client.transact`.
        """
        given: dict[str, Any] = {
            "conditions": conditions,
            "then": then,
            "otherwise": otherwise,
            "guard": guard,
            "message": message,
            "request_id": request_id,
            "timeout": timeout,
        }
        call = Call[Any]()
        function_there: Any = call.here(plain(function)) if callable(function) else function
        return call.run(self._async.transact(function_there, **given))

    @overload
    def cell(self, key: str, type: type[T], *, default: T = MISSING) -> Cell[T]: ...

    @overload
    def cell(self, key: str, type: Any, *, default: Any = MISSING) -> Cell[Any]: ...

    @documented(_Async.cell)
    def cell(self, key: str, type: Any, *, default: Any = MISSING) -> Cell[Any]:
        return Cell(self._async.cell(key, type, default=default))

    # Leases

    def lease(self, ttl: float, *, message: str = "", timeout: float | None = None) -> Leasing:
        """A lease for a block, which is kept alive in it, and revoked at its end: its keys are deleted then.

            with state.lease(10.0) as lease:
                state.put("agents/a", {"busy": False}, lease=lease)
                state.put("x", 1, guard=lease)  # comity.LeaseLost if it has ended

        Nothing can interrupt the block when the lease is lost: `lease.check()` raises LeaseLost then, and so does the
        end of the block, unless the block itself raises. The rest is as of `comity.Client.lease`.
        """
        return Leasing(self._async.lease(ttl, message=message, timeout=timeout))

    @documented(_Async.grant_lease)
    def grant_lease(
        self,
        ttl: float,
        *,
        message: str = "",
        request_id: RequestId | None = None,
        guard: Guard | None = None,
        timeout: float | None = None,
    ) -> Lease:
        return Lease(
            run(self._async.grant_lease(ttl, message=message, request_id=request_id, guard=guard, timeout=timeout))
        )

    @documented(_Async.keep_alive)
    def keep_alive(self, lease: OfLease, *, ttl: float | None = None, timeout: float | None = None) -> Lease:
        return Lease(run(self._async.keep_alive(lease, ttl=ttl, timeout=timeout)))

    renew_lease = waiting(_Async.renew_lease)
    revoke_lease = waiting(_Async.revoke_lease)
    get_lease = waiting(_Async.get_lease)
    list_leases = delegating(_Async.list_leases, items)

    # Checkpoints

    checkpoint = waiting(_Async.checkpoint)
    get_checkpoint = waiting(_Async.get_checkpoint)
    checkpoints = delegating(_Async.checkpoints, items)
    delete_checkpoint = waiting(_Async.delete_checkpoint)
    restore = waiting(_Async.restore)
    diff = delegating(_Async.diff, DiffListing)

    # Namespaces

    namespace_info = waiting(_Async.namespace_info)
    namespaces = delegating(_Async.namespaces, items)
    delete_namespace = waiting(_Async.delete_namespace)
    compact = waiting(_Async.compact)
    merge = waiting(_Async.merge)

    @documented(_Async.fork)
    def fork(
        self,
        name: str,
        ref: requests.Ref | None = None,
        *,
        message: str = "",
        request_id: RequestId | None = None,
        timeout: float | None = None,
    ) -> Self:
        forked = run(self._async.fork(name, ref, message=message, request_id=request_id, timeout=timeout))
        return type(self)(forked)

    # The server

    wait_for_ready = waiting(_Async.wait_for_ready)
    server_status = waiting(_Async.server_status)
