"""What a store promises, whatever it keeps its data in. tests/contract holds every store to it.

A store knows no gRPC. It is used from one event loop, and does what takes long off it. Its errors are those of
`comity_server.errors`; anything else that it raises is a defect.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from comity_server.errors import StateError
from comity_server.limits import Limits, Retention
from comity_server.model import (
    Checkpoint,
    Commit,
    CommitRange,
    DiffPage,
    LeaseInfo,
    NamespaceInfo,
    Outcome,
    Page,
    Position,
    Provenance,
    Read,
    ReadAll,
    Ref,
    Write,
)


class Listener(Protocol):
    """Hears of a namespace's commits as they become visible."""

    def publish(self, commits: Sequence[Commit]) -> None:
        """The commits after those published before: in order, none left out, none twice."""

    def reset(self) -> None:
        """What was published is no longer the history: the namespace was deleted, or begun anew."""


class Store(Protocol):
    """Namespaces, each with its own revisions. A namespace that does not exist reads as empty at revision 0."""

    async def open(self) -> None:
        """Make ready for use. Raises StoreUnavailable if that cannot be."""

    async def close(self) -> None:
        """Finish what was begun, and let go of everything."""

    def bound(self, limits: Callable[[str], Limits]) -> None:
        """From now on ask for the limits of each namespace, whenever something is added there. What there is already
        stays. Those which are not of a namespace alone, as how many there may be, are the store's own."""

    def time(self) -> int:
        """By the clock of commits, in µs since 1970."""

    def writable(self) -> bool:
        """Whether a commit can be expected to succeed."""

    def trouble(self) -> str:
        """Why it cannot, in a few words; empty: it can."""

    async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
        """Judge and apply each write in turn, each as if alone, and answer for each in the same order.

        Returns when all that was applied is as durable as the store promises; nothing is visible before. What the store
        could not make durable is answered with StoreFull or StoreUnavailable; of the latter the end is unknown, and it
        may be repeated under its request id.
        """

    async def get(self, namespace: str, key: str, revision: int = 0) -> Read:
        """Read a key at a revision; 0 is the newest. Raises Compacted or RevisionInFuture."""

    async def get_all(self, namespace: str, keys: Sequence[str], revision: int = 0) -> ReadAll:
        """Read keys, all at one revision; 0 is the newest. Raises Compacted or RevisionInFuture."""

    async def list(
        self,
        namespace: str,
        prefix: str,
        *,
        after: str = "",
        limit: int,
        max_bytes: int,
        keys_only: bool = False,
        revision: int = 0,
    ) -> Page:
        """Read the entries under a prefix whose keys are greater than `after`, at a revision; 0 is the newest.

        A page ends at `limit` entries, before an entry that would take it past `max_bytes` (but for its first; an entry
        counts as `record.shown_size` says), or where the store has looked at enough; it may then be empty and still
        have a `next_after`. Raises Compacted or RevisionInFuture.
        """

    async def commits(
        self, namespace: str, *, first: int, last: int, limit: int, newest_first: bool = False
    ) -> CommitRange:
        """Read up to `limit` commits with revisions from `first` to `last`, whichever of these exist.

        Raises Compacted if `first` is at or below the floor.
        """

    async def position(self, namespace: str) -> Position:
        """Where a namespace stands. One that never existed is at 0; of one that was deleted revision and floor are one
        more than its newest revision was, so that whoever watched it is told."""

    async def provenance(self, namespace: str, revisions: Sequence[int]) -> Mapping[int, Provenance]:
        """What the commits of these revisions said of themselves: of those that wrote what can still be read. One that
        is not in the answer said nothing, or is forgotten."""

    async def checkpoint(self, namespace: str, name: str) -> Checkpoint:
        """Raises CheckpointNotFound."""

    async def checkpoints(
        self, namespace: str, labels: Mapping[str, str], *, after: str = "", limit: int
    ) -> Sequence[Checkpoint]:
        """The checkpoints that have all these labels, and whose names are greater than `after`, in order. Raises
        NamespaceNotFound."""

    async def lease(self, namespace: str, id: int) -> LeaseInfo:
        """Raises LeaseNotFound."""

    async def leases(self, namespace: str, *, after: int = 0, limit: int) -> Sequence[LeaseInfo]:
        """The leases with ids above one, in their order. Raises NamespaceNotFound."""

    async def keep_alive(self, namespace: str, lease_ids: Sequence[int]) -> Sequence[int]:
        """Renew leases, each for its ttl from now on. Returns how long each lives now, in µs, as durable as the store
        promises; 0: it has ended."""

    async def ended(self, namespace: str, lease_ids: Sequence[int]) -> Sequence[int]:
        """Which of some leases do not live any more."""

    async def due(self) -> Mapping[str, Sequence[int]]:
        """The leases that have run out, by namespace: whoever asks commits `Expire` for them, which ends those that it
        finds to have run out. To be called several times a second. Raises StoreUnavailable."""

    async def diff(
        self,
        namespace: str,
        base: Ref,
        target: Ref = None,
        prefix: str = "",
        *,
        after: str = "",
        limit: int,
        max_bytes: int,
        keys_only: bool = False,
    ) -> DiffPage:
        """Read what differs between two states under a prefix: keys that are greater than `after`.

        A page ends as one of `list` does, with the entries of both sides counted. Raises NamespaceNotFound,
        CheckpointNotFound, Compacted or RevisionInFuture.
        """

    async def follow(self, namespace: str, listener: Listener) -> Position:
        """Tell a listener of every commit after the revision that is returned, from now on.

        A namespace has at most one listener at a time; the namespace need not exist yet. After a `reset` the listener
        hears of the new history.
        """

    async def unfollow(self, namespace: str) -> None:
        """Stop telling."""

    async def namespace(self, name: str) -> NamespaceInfo:
        """Describe a namespace. Raises NamespaceNotFound."""

    async def namespaces(
        self, prefix: str, *, after: str = "", limit: int, shown: Callable[[str], bool] | None = None
    ) -> Sequence[NamespaceInfo]:
        """Describe the namespaces whose names begin with a prefix and are greater than `after`, in order: all, or those
        that are to be `shown`. It may look at all names for them, and lets others in meanwhile."""

    async def delete_namespace(self, name: str, if_revision: int | None = None) -> None:
        """Delete a namespace with its history, but for its counter, which goes one up, and its request ids. Raises
        NamespaceNotFound or Conflict."""

    async def compact(self, name: str, revision: int = 0) -> int:
        """Raise the floor to a revision (0: the newest), and return the floor. Raises NamespaceNotFound or
        RevisionInFuture."""

    async def sweep(self) -> None:
        """Forget the outcomes of namespaces that were deleted a window ago, and of very many names the counters of the
        oldest: no revision is given out twice for it. To be called now and then."""

    async def retain(self, name: str, retention: Retention) -> int:
        """Raise the floor as far as the retention asks for, and return it. Raises NamespaceNotFound."""
