"""What comes in pages, read in a loop. Each page is a call, made when it is asked for."""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from comity import listing, model

from .thread import run
from .waiting import items

__all__ = ["BlameListing", "DiffListing", "HistoryListing", "Listing"]

Item = TypeVar("Item")
Source = TypeVar("Source", bound="listing.Pages[Any, Any]")


class Pages(Generic[Source, Item]):
    """Items that are read in pages, anew each time that one begins to.

    for item in listing: ...
    for page in listing.pages(): ...
    everything = listing.all()
    """

    def __init__(self, source: Source) -> None:
        self._async = source

    def pages(self) -> Iterator[tuple[Item, ...]]:
        """The items in order, a tuple for each call to the server. A page may be empty."""
        return items(self._async.pages())

    def __iter__(self) -> Iterator[Item]:
        for page in self.pages():
            yield from page

    def all(self) -> list[Item]:
        """All of them, in order."""
        found: list[Item] = run(self._async.all())
        return found


class Listing(Pages[listing.Listing, model.Entry]):
    """The entries under a prefix, all as one revision has them. Made by `Client.list`."""

    @property
    def revision(self) -> int:
        """The revision that all pages show. Known after the first page: RuntimeError before."""
        return self._async.revision

    @property
    def epoch(self) -> str:
        """Of the history that `revision` is of: a watch from the next revision on is given it. RuntimeError before the
        first page."""
        return self._async.epoch


class BlameListing(Pages[listing.BlameListing, model.Attribution]):
    """Who wrote each key under a prefix last, all as of one revision. Made by `Client.blame`."""

    @property
    def revision(self) -> int:
        """The revision that all pages show. Known after the first page: RuntimeError before."""
        return self._async.revision


class DiffListing(Pages[listing.DiffListing, model.Difference]):
    """The keys that differ between two revisions. Made by `Client.diff`."""

    @property
    def base_revision(self) -> int:
        """The revision that was compared from. Known after the first page: RuntimeError before."""
        return self._async.base_revision

    @property
    def target_revision(self) -> int:
        """The revision that it was compared with. Known after the first page: RuntimeError before."""
        return self._async.target_revision


class HistoryListing(Pages[listing.HistoryListing, model.Commit]):
    """The commits between two revisions, whole, however large they are. Made by `Client.history`."""

    @property
    def revision(self) -> int:
        """The newest revision when the first page was read: nothing newer is shown. RuntimeError before."""
        return self._async.revision

    @property
    def floor(self) -> int:
        """Commits above this revision are kept. RuntimeError before the first page."""
        return self._async.floor
