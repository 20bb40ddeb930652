"""What comes in pages: entries, commits, namespaces. Each page is a call of its own, made when it is asked for."""

from collections.abc import AsyncIterator
from dataclasses import replace

from . import convert, model
from .calls import Calls
from .v1 import namespace_pb2, state_pb2

__all__ = ["HistoryListing", "Listing", "namespaces"]


class Listing:
    """The entries under a prefix, all as one revision has them. Made by `Client.list`.

        async for entry in listing: ...
        async for page in listing.pages(): ...
        entries = await listing.all()

    Each of these reads anew. Errors: those of `Client.get`; Compacted also if the revision is compacted between pages.
    """

    def __init__(self, calls: Calls, request: state_pb2.ListRequest, timeout: float) -> None:
        self._calls = calls
        self._request = request
        self._timeout = timeout
        self._revision: int | None = None

    @property
    def revision(self) -> int:
        """The revision that all pages show. Known after the first page: RuntimeError before."""
        if self._revision is None:
            raise RuntimeError("the revision is known after the first page was read")
        return self._revision

    async def pages(self) -> AsyncIterator[tuple[model.Entry, ...]]:
        """The entries in the order of keys, a tuple for each call to the server. A page may be empty."""
        request = state_pb2.ListRequest()
        request.CopyFrom(self._request)
        while True:
            response = await self._calls.read(lambda to: to.state.List, request, self._timeout)
            self._revision = response.revision
            yield convert.entries(response.entries)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def __aiter__(self) -> AsyncIterator[model.Entry]:
        async for page in self.pages():
            for entry in page:
                yield entry

    async def all(self) -> list[model.Entry]:
        """All entries, in the order of keys."""
        return [entry async for entry in self]


class HistoryListing:
    """The commits between two revisions, whole, however large they are. Made by `Client.history`.

        async for commit in history: ...
        commits = await history.all()

    Each of these reads anew. Errors: those of `Client.history`.
    """

    def __init__(self, calls: Calls, request: state_pb2.HistoryRequest, timeout: float) -> None:
        self._calls = calls
        self._request = request
        self._timeout = timeout
        self._revision: int | None = None
        self._floor: int | None = None

    @property
    def revision(self) -> int:
        """The newest revision when the first page was read: nothing newer is shown. RuntimeError before."""
        if self._revision is None:
            raise RuntimeError("the revision is known after the first page was read")
        return self._revision

    @property
    def floor(self) -> int:
        """Commits above this revision are kept. RuntimeError before the first page."""
        if self._floor is None:
            raise RuntimeError("the floor is known after the first page was read")
        return self._floor

    async def __aiter__(self) -> AsyncIterator[model.Commit]:
        request = state_pb2.HistoryRequest()
        request.CopyFrom(self._request)
        begun: tuple[model.Event, ...] = ()
        while True:
            response = await self._calls.read(lambda to: to.state.History, request, self._timeout)
            self._revision = response.revision
            self._floor = response.floor
            for message in response.commits:
                commit = convert.commit(message)
                if message.partial:
                    begun += commit.events
                else:
                    yield replace(commit, events=begun + commit.events) if begun else commit
                    begun = ()
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def all(self) -> list[model.Commit]:
        """All commits, in the order that was asked for."""
        return [commit async for commit in self]


async def namespaces(calls: Calls, prefix: str, timeout: float) -> AsyncIterator[model.Namespace]:
    """The namespaces whose names begin with the prefix, in the order of their names."""
    request = namespace_pb2.ListNamespacesRequest(prefix=prefix)
    while True:
        response = await calls.read(lambda to: to.namespaces.ListNamespaces, request, timeout)
        for message in response.namespaces:
            yield convert.namespace(message)
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token
