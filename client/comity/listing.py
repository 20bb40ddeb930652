"""What comes in pages: entries, commits, differences, names. Each page is a call, made when it is asked for."""

import copy
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from . import convert, model
from .arguments import built
from .calls import Calls
from .stubs import Method
from .v1 import checkpoint_pb2, lease_pb2, namespace_pb2, state_pb2

__all__ = ["BlameListing", "DiffListing", "HistoryListing", "Listing", "checkpoints", "leases", "namespaces"]


class Asking(Protocol):
    page_token: str


class Answering(Protocol):
    @property
    def next_page_token(self) -> str: ...


Item = TypeVar("Item")
Request = TypeVar("Request", bound=Asking)
Response = TypeVar("Response", bound=Answering)


async def _responses(
    calls: Calls, method: Method[Request, Response], request: Request, timeout: float
) -> AsyncIterator[Response]:
    """The answers to a request, from its page to the last one."""
    request = copy.deepcopy(request)
    while True:
        response = await calls.read(method, request, timeout)
        yield response
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token


def _known(value: int | None) -> int:
    if value is None:
        raise RuntimeError("the revision is known after the first page was read")
    return value


class Pages(ABC, Generic[Request, Item]):
    """Items that are read in pages, anew each time that one begins to."""

    def __init__(self, calls: Calls, request: Request, timeout: float) -> None:
        self._calls = calls
        self._request = request
        self._timeout = timeout

    @abstractmethod
    def pages(self) -> AsyncIterator[tuple[Item, ...]]:
        """The items in order, a tuple for each call to the server. A page may be empty."""

    async def __aiter__(self) -> AsyncIterator[Item]:
        async for page in self.pages():
            for item in page:
                yield item

    async def all(self) -> list[Item]:
        """All of them, in order."""
        return [item async for item in self]


class Listing(Pages[state_pb2.ListRequest, model.Entry]):
    """The entries under a prefix, all as one revision has them. Made by `Client.list`.

        async for entry in listing: ...
        async for page in listing.pages(): ...
        entries = await listing.all()

    Each of these reads anew. Errors: those of `Client.get`; Compacted also if the revision is compacted between pages.
    """

    _revision: int | None = None
    _epoch = ""

    @property
    def revision(self) -> int:
        """The revision that all pages show. Known after the first page: RuntimeError before."""
        return _known(self._revision)

    @property
    def epoch(self) -> str:
        """Of the history that `revision` is of: a watch from the next revision on is given it. RuntimeError before the
        first page."""
        _known(self._revision)
        return self._epoch

    async def pages(self) -> AsyncIterator[tuple[model.Entry, ...]]:
        """The entries in the order of keys, a tuple for each call to the server. A page may be empty."""
        async for response in _responses(self._calls, lambda to: to.state.List, self._request, self._timeout):
            self._revision = response.revision
            self._epoch = response.epoch
            yield convert.entries(response.entries)


class BlameListing(Pages[state_pb2.BlameRequest, model.Attribution]):
    """Who wrote each key under a prefix last, all as of one revision. Made by `Client.blame`, read as a `Listing` is.

    Errors: those of a `Listing`.
    """

    _revision: int | None = None

    @property
    def revision(self) -> int:
        """The revision that all pages show. Known after the first page: RuntimeError before."""
        return _known(self._revision)

    async def pages(self) -> AsyncIterator[tuple[model.Attribution, ...]]:
        """The keys in order, a tuple for each call to the server. A page may be empty."""
        async for response in _responses(self._calls, lambda to: to.state.Blame, self._request, self._timeout):
            self._revision = response.revision
            yield tuple(map(convert.attribution, response.attributions))


class DiffListing(Pages[checkpoint_pb2.DiffRequest, model.Difference]):
    """The keys that differ between two revisions. Made by `Client.diff`, read as a `Listing` is.

    Errors: those of a `Listing`, and NotFound if there is no checkpoint of that name.
    """

    _base_revision: int | None = None
    _target_revision: int | None = None

    @property
    def base_revision(self) -> int:
        """The revision that was compared from. Known after the first page: RuntimeError before."""
        return _known(self._base_revision)

    @property
    def target_revision(self) -> int:
        """The revision that it was compared with. Known after the first page: RuntimeError before."""
        return _known(self._target_revision)

    async def pages(self) -> AsyncIterator[tuple[model.Difference, ...]]:
        """The differences in the order of keys, a tuple for each call to the server. A page may be empty."""
        async for response in _responses(self._calls, lambda to: to.checkpoints.Diff, self._request, self._timeout):
            self._base_revision = response.base_revision
            self._target_revision = response.target_revision
            yield tuple(map(convert.difference, response.differences))


class HistoryListing(Pages[state_pb2.HistoryRequest, model.Commit]):
    """The commits between two revisions, whole, however large they are. Made by `Client.history`.

        async for commit in history: ...
        commits = await history.all()

    Each of these reads anew. Errors: those of `Client.history`.
    """

    _revision: int | None = None
    _floor: int | None = None

    @property
    def revision(self) -> int:
        """The newest revision when the first page was read: nothing newer is shown. RuntimeError before."""
        return _known(self._revision)

    @property
    def floor(self) -> int:
        """Commits above this revision are kept. RuntimeError before the first page."""
        return _known(self._floor)

    async def pages(self) -> AsyncIterator[tuple[model.Commit, ...]]:
        """The commits in the order that was asked for, a tuple for each call to the server. A page may be empty."""
        begun: tuple[model.Event, ...] = ()
        async for response in _responses(self._calls, lambda to: to.state.History, self._request, self._timeout):
            self._revision = response.revision
            self._floor = response.floor
            page = []
            for message in response.commits:
                commit = convert.commit(message)
                if message.partial:
                    begun += commit.events
                else:
                    page.append(replace(commit, events=begun + commit.events) if begun else commit)
                    begun = ()
            yield tuple(page)


async def checkpoints(
    calls: Calls, request: checkpoint_pb2.ListCheckpointsRequest, timeout: float
) -> AsyncIterator[model.Checkpoint]:
    """The checkpoints of a namespace, in the order of their names."""
    async for response in _responses(calls, lambda to: to.checkpoints.ListCheckpoints, request, timeout):
        for message in response.checkpoints:
            yield convert.checkpoint(message)


async def leases(calls: Calls, request: lease_pb2.ListLeasesRequest, timeout: float) -> AsyncIterator[model.LeaseInfo]:
    """The leases of a namespace, in the order of their ids."""
    async for response in _responses(calls, lambda to: to.leases.ListLeases, request, timeout):
        for message in response.leases:
            yield convert.lease(message)


async def namespaces(calls: Calls, prefix: str, timeout: float) -> AsyncIterator[model.Namespace]:
    """The namespaces whose names begin with the prefix, in the order of their names."""
    request = built(namespace_pb2.ListNamespacesRequest, prefix=prefix)
    async for response in _responses(calls, lambda to: to.namespaces.ListNamespaces, request, timeout):
        for message in response.namespaces:
            yield convert.namespace(message)
