"""The namespaces of a server: what there is, deleting it, forgetting its past, branching it and merging the branch."""

from collections.abc import AsyncIterator
from typing import Literal, Protocol, Self, runtime_checkable

from . import convert, listing, model, requests
from .arguments import built
from .base import Base
from .leases.guard import Guard
from .request_ids import RequestId
from .v1 import namespace_pb2

__all__ = ["Namespaces"]

STRATEGIES = {
    model.MergeStrategy.FAIL: namespace_pb2.MERGE_STRATEGY_FAIL,
    model.MergeStrategy.OURS: namespace_pb2.MERGE_STRATEGY_OURS,
    model.MergeStrategy.THEIRS: namespace_pb2.MERGE_STRATEGY_THEIRS,
}


@runtime_checkable
class HasNamespace(Protocol):
    """A client, synchronous or not."""

    @property
    def namespace(self) -> str: ...


class Namespaces(Base):
    """The part of a client that is about its namespace as a whole; about another by `with_options(namespace=...)`."""

    async def namespace_info(self, *, timeout: float | None = None) -> model.Namespace:
        """What is known of the namespace. Raises NotFound."""
        request = built(namespace_pb2.GetNamespaceRequest, namespace=self.namespace)
        response = await self._calls.read(lambda to: to.namespaces.GetNamespace, request, self._timeout(timeout))
        return convert.namespace(response.namespace)

    def namespaces(self, prefix: str = "", *, timeout: float | None = None) -> AsyncIterator[model.Namespace]:
        """The namespaces whose names begin with the prefix, in order: `async for namespace in state.namespaces()`.

        timeout: of each page.
        """
        return listing.namespaces(self._calls, prefix, self._timeout(timeout))

    async def delete_namespace(self, *, if_revision: int | None = None, timeout: float | None = None) -> None:
        """Delete the namespace with its history. Its watches start anew with a Resync.

        Not tried again by itself when the connection breaks, since a namespace of that name may have come since.

        if_revision: only if its newest revision is this. Raises Conflict, and NotFound.
        """
        request = built(namespace_pb2.DeleteNamespaceRequest, namespace=self.namespace, if_revision=if_revision)
        await self._calls.once(lambda to: to.namespaces.DeleteNamespace, request, self._timeout(timeout))

    async def compact(self, revision: int | None = None, *, timeout: float | None = None) -> int:
        """Forget what was before a revision. Returns the floor: the oldest revision that can be read.

        revision: the oldest to keep; None: the newest, which forgets all before it. 0 forgets nothing.

        Raises NotFound, and OutOfRange above the newest.
        """
        if revision == 0:  # to the server that would mean the newest
            return (await self.namespace_info(timeout=timeout)).floor
        request = built(namespace_pb2.CompactRequest, namespace=self.namespace, revision=revision)
        # Like a read it may be repeated without an id: to compact twice is to compact once.
        response = await self._calls.read(lambda to: to.namespaces.Compact, request, self._timeout(timeout))
        return response.floor

    async def fork(
        self,
        name: str,
        ref: requests.Ref | None = None,
        *,
        message: str = "",
        request_id: RequestId | None = None,
        timeout: float | None = None,
    ) -> Self:
        """Make a namespace that starts as this one was, and return a client for it, on the same connections.

        Nothing is copied: it costs the same however large the namespace is.

        ref: a revision, a checkpoint or its name, at which to fork; None: the newest revision.
        message: why, for the first commit of the fork. Without one it says what was forked.
        request_id: as of `put`.

        Raises AlreadyExists if the name is taken; NotFound if there is no such namespace or checkpoint; Compacted below
        the floor, OutOfRange above the newest revision; TypeError for what names no revision.
        """
        request = built(
            namespace_pb2.ForkRequest,
            namespace=self.namespace,
            fork=name,
            ref=None if ref is None else requests.ref(ref),
        )
        await self._write(lambda to: to.namespaces.Fork, request, message, timeout, request_id)
        return self.with_options(namespace=name)

    async def merge(
        self,
        fork: HasNamespace | str,
        *,
        strategy: model.MergeStrategy | Literal["fail", "ours", "theirs"] = model.MergeStrategy.FAIL,
        dry_run: bool = False,
        message: str = "",
        request_id: RequestId | None = None,
        guard: Guard | None = None,
        timeout: float | None = None,
    ) -> model.MergeResult:
        """Bring what a fork of this namespace changed since it was made into this one, as one commit. The fork stays.

        fork: its name, or a client for it.
        strategy: what to do with keys that both sides changed to different ends. With "fail" nothing is merged then,
            which is no error: the result says so, with the conflicts.
        dry_run: change nothing, and answer with what would happen.
        message, request_id, guard: as of `put`.

        Raises NotFound if there is no such fork; FailedPrecondition, reason NOT_A_FORK, if it is no fork of this
        namespace; ValueError for another strategy.
        """
        request = built(
            namespace_pb2.MergeRequest,
            namespace=self.namespace,
            fork=fork.namespace if isinstance(fork, HasNamespace) else fork,
            strategy=STRATEGIES[model.MergeStrategy(strategy)],
            dry_run=dry_run,
        )
        response = await self._write(lambda to: to.namespaces.Merge, request, message, timeout, request_id, guard)
        return convert.merge_result(response)
