"""One namespace of the store under test, with short words for what most tests do."""

import uuid
from collections.abc import Sequence

from comity_server.errors import StateError
from comity_server.limits import Limits
from comity_server.model import (
    Checkpoint,
    Commit,
    Condition,
    Delete,
    DeletePrefix,
    DeleteResult,
    Difference,
    DiffPage,
    DropCheckpoint,
    Expire,
    Fork,
    Grant,
    Lease,
    MakeCheckpoint,
    Merge,
    MergeResult,
    NamespaceInfo,
    Operation,
    Outcome,
    Page,
    Position,
    Put,
    PutResult,
    Read,
    Ref,
    RequestId,
    Restore,
    RestoreResult,
    Result,
    Revoke,
    Strategy,
    Transaction,
    Write,
)
from comity_server.record import KEY, VALUE, Record, shown_size, size
from comity_server.stores.protocol import Store
from tests.waiting import until

LIMITS = Limits()
SECOND = 1_000_000  # µs, as are the ttls of leases
HOUR = 3600 * SECOND


def fresh_name() -> str:
    """A namespace that no other test uses: stores of one test run may share a server."""
    return f"t-{uuid.uuid4().hex}"


class Space:
    """A namespace. Its methods raise what the store answers as an error."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    def sibling(self, suffix: str) -> "Space":
        """Another namespace of the same store, whose name begins with this one's."""
        return Space(self.store, f"{self.name}.{suffix}")

    async def group(self, *writes: Write) -> Sequence[Outcome | StateError]:
        outcomes = await self.store.commit(self.name, writes)
        assert len(outcomes) == len(writes)
        return outcomes

    async def outcomes(self, *writes: Write) -> list[Outcome]:
        """Of a group in which none fails."""
        outcomes = []
        for outcome in await self.group(*writes):
            if isinstance(outcome, StateError):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def commit(self, write: Write) -> Outcome:
        (outcome,) = await self.outcomes(write)
        return outcome

    async def apply(
        self,
        *then: Operation,
        conditions: Sequence[Condition] = (),
        otherwise: Sequence[Operation] = (),
        request_id: RequestId | None = None,
    ) -> Outcome:
        return await self.commit(Transaction(conditions, then, otherwise, request_id))

    async def put(self, key: str, value: bytes = b"v", content_type: str = "") -> int:
        return (await self.apply(Put(key, value, content_type))).revision

    async def delete(self, key: str) -> int:
        return (await self.apply(Delete(key))).revision

    async def delete_prefix(self, prefix: str) -> int:
        return (await self.apply(DeletePrefix(prefix))).revision

    async def grant(self, ttl: int = HOUR, *, author: str = "", request_id: RequestId | None = None) -> Lease:
        (lease,) = (await self.commit(Grant(ttl=ttl, author=author, request_id=request_id))).results
        assert isinstance(lease, Lease)
        return lease

    async def put_with(self, lease: Lease | int, *keys: str, value: bytes = b"v") -> int:
        """Put keys that live by a lease."""
        id = lease if isinstance(lease, int) else lease.id
        return (await self.apply(*(Put(key, value, lease_id=id) for key in keys))).revision

    async def put_for(self, ttl: int, *keys: str, value: bytes = b"v") -> int:
        """Put keys that live so long, by a lease of their own. Returns its id."""
        (id,) = {
            own_lease(result) for result in (await self.apply(*(Put(key, value, ttl=ttl) for key in keys))).results
        }
        return id

    async def revoke(self, lease: Lease | int, *, request_id: RequestId | None = None) -> int:
        """Returns how many keys went."""
        id = lease if isinstance(lease, int) else lease.id
        (result,) = (await self.commit(Revoke(lease_id=id, request_id=request_id))).results
        assert isinstance(result, DeleteResult)
        return result.deleted

    async def leases(self) -> dict[int, int]:
        """The leases that live, and how many keys do by each."""
        found = await self.store.leases(self.name, limit=LIMITS.page_entries)
        return {info.lease.id: info.key_count for info in found}

    async def remaining(self, lease: Lease | int) -> int:
        """µs."""
        id = lease if isinstance(lease, int) else lease.id
        return (await self.store.lease(self.name, id)).remaining

    async def expire(self) -> list[int]:
        """End the leases of the store that are due, as a server does all the time. Returns those of this namespace."""
        due = await self.store.due()
        for name, ids in due.items():
            for outcome in await self.store.commit(name, [Expire(lease_ids=tuple(ids))]):
                if isinstance(outcome, StateError):
                    raise outcome
        return list(due.get(self.name, ()))

    async def expired(self, *leases: Lease | int) -> None:
        """Wait until leases have ended by themselves."""
        ids = [lease if isinstance(lease, int) else lease.id for lease in leases]

        async def ended() -> bool:
            await self.expire()
            return len(await self.store.ended(self.name, ids)) == len(ids)

        await until(ended)

    async def get(self, key: str, revision: int = 0) -> Record | None:
        return (await self.store.get(self.name, key, revision)).entry

    async def entry(self, key: str, revision: int = 0) -> Record:
        """A key that is known to exist."""
        record = await self.get(key, revision)
        assert record is not None, f"{key} is absent"
        return record

    async def pages(
        self,
        prefix: str = "",
        *,
        limit: int = LIMITS.page_entries,
        max_bytes: int = LIMITS.page_bytes,
        keys_only: bool = False,
        revision: int = 0,
    ) -> list[Page]:
        """All pages of a listing, at the revision of the first, each held to its bounds."""
        pages: list[Page] = []
        after = ""
        while True:
            page = await self.store.list(
                self.name, prefix, after=after, limit=limit, max_bytes=max_bytes, keys_only=keys_only, revision=revision
            )
            assert len(page.entries) <= limit
            assert len(page.entries) <= 1 or sum(map(size, page.entries)) <= max_bytes
            assert not pages or page.revision == revision, "a later page shows another revision"
            pages.append(page)
            if page.next_after is None:
                return pages
            assert page.next_after > after, "the listing does not move on"
            after, revision = page.next_after, page.revision

    async def entries(self, prefix: str = "", *, keys_only: bool = False, revision: int = 0) -> list[Record]:
        pages = await self.pages(prefix, keys_only=keys_only, revision=revision)
        return [record for page in pages for record in page.entries]

    async def keys(self, prefix: str = "", revision: int = 0) -> list[str]:
        return [record[KEY] for record in await self.entries(prefix, revision=revision)]

    async def checkpoint(self, name: str, revision: int = 0, *, message: str = "", **labels: str) -> Checkpoint:
        made = MakeCheckpoint(name=name, revision=revision, labels=tuple(sorted(labels.items())), message=message)
        (checkpoint,) = (await self.commit(made)).results
        assert isinstance(checkpoint, Checkpoint)
        return checkpoint

    async def drop(self, name: str) -> None:
        await self.commit(DropCheckpoint(name=name))

    async def restore(
        self, ref: Ref, prefix: str = "", *, if_revision: int | None = None, dry_run: bool = False
    ) -> tuple[int, RestoreResult]:
        """The revision that it answers, and its result."""
        outcome = await self.commit(Restore(ref=ref, prefix=prefix, if_revision=if_revision, dry_run=dry_run))
        assert outcome.committed is not dry_run
        (result,) = outcome.results
        assert isinstance(result, RestoreResult)
        return outcome.revision, result._replace(differences=tuple(result.differences))

    async def fork(self, suffix: str, ref: Ref = None) -> "Space":
        """A fork of this namespace, named as a sibling of it."""
        fork = self.sibling(suffix)
        assert (await fork.commit(Fork(parent=self.name, ref=ref))).committed
        return fork

    async def merge(
        self, fork: "Space", strategy: Strategy = Strategy.FAIL, *, dry_run: bool = False
    ) -> tuple[Outcome, MergeResult]:
        outcome = await self.commit(Merge(fork=fork.name, strategy=strategy, dry_run=dry_run))
        (result,) = outcome.results
        assert isinstance(result, MergeResult)
        return outcome, result

    async def diff_pages(
        self,
        base: Ref,
        target: Ref = None,
        prefix: str = "",
        *,
        limit: int = LIMITS.page_entries,
        max_bytes: int = LIMITS.page_bytes,
        keys_only: bool = False,
    ) -> list[DiffPage]:
        """All pages of a diff, between the revisions of the first, each held to its bounds."""
        pages: list[DiffPage] = []
        after = ""
        while True:
            page = await self.store.diff(
                self.name, base, target, prefix, after=after, limit=limit, max_bytes=max_bytes, keys_only=keys_only
            )
            assert len(page.differences) <= limit
            shown = [entry for difference in page.differences for entry in difference[1:] if entry is not None]
            assert len(page.differences) <= 1 or sum(map(shown_size, shown)) <= max_bytes
            assert not pages or page[1:3] == pages[0][1:3], "a later page compares other revisions"
            pages.append(page)
            if page.next_after is None:
                return pages
            assert page.next_after > after, "the diff does not move on"
            after, base, target = page.next_after, page.base_revision, page.target_revision

    async def differences(
        self, base: Ref, target: Ref = None, prefix: str = "", *, keys_only: bool = False
    ) -> list[Difference]:
        pages = await self.diff_pages(base, target, prefix, keys_only=keys_only)
        return [difference for page in pages for difference in page.differences]

    async def compact(self, revision: int = 0) -> int:
        return await self.store.compact(self.name, revision)

    async def info(self) -> NamespaceInfo:
        return await self.store.namespace(self.name)

    async def history_bytes(self) -> int:
        """The size of what is kept beside the newest state."""
        return (await self.info()).history_size_bytes

    async def settled(self) -> int:
        """The same, when all that a compaction of everything may drop is dropped, and nothing but pins keep the rest.

        A store may drop in the background: it is asked until two answers in a row are one.
        """
        await self.compact()
        sizes = [-1, await self.history_bytes()]

        async def still() -> bool:
            sizes.append(await self.history_bytes())
            return sizes[-1] == sizes[-2]

        await until(still)
        return sizes[-1]

    async def contents(self, revision: int = 0) -> dict[str, bytes]:
        """The value of each key."""
        return {entry[KEY]: entry[VALUE] for entry in await self.entries(revision=revision)}

    async def position(self) -> Position:
        return await self.store.position(self.name)

    async def revision(self) -> int:
        return (await self.position()).revision

    async def log(self) -> Sequence[Commit]:
        """Every commit that is kept, oldest first."""
        position = await self.position()
        read = await self.store.commits(self.name, first=position.floor + 1, last=position.revision, limit=1_000_000)
        assert (read.revision, read.floor) == (position.revision, position.floor)
        return read.commits


def own_lease(result: Result) -> int:
    """The lease that a put was answered to have made for its key."""
    assert isinstance(result, PutResult)
    assert result.lease_id
    return result.lease_id


def plain(thing: object, *, times: bool = True) -> object:
    """Outcomes, pages, commits in a form that compares by content: what is a list and what a tuple says nothing.

    Without `times`, entries, commits, leases and checkpoints are compared by all but their time, and what is said of
    namespaces by what a model can tell of them. What says of which epoch it is, is compared by all but that.
    """
    if isinstance(thing, Outcome | Page | Read):
        thing = thing._replace(epoch="")
    if isinstance(thing, Commit) and not times:
        thing = thing._replace(time=0)
    if isinstance(thing, NamespaceInfo) and not times:
        thing = thing._replace(create_time=0, update_time=0, history_size_bytes=0, epoch="")
    if isinstance(thing, Lease) and not times:
        thing = thing._replace(create_time=0)
    if isinstance(thing, Checkpoint):
        return ("Checkpoint", *(thing if times else thing._replace(create_time=0)))
    if type(thing) is tuple and len(thing) == 8 and isinstance(thing[0], str):  # an entry
        return thing if times else thing[:-1]
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return (type(thing).__name__, *(plain(part, times=times) for part in thing))
    if isinstance(thing, Sequence) and not isinstance(thing, str | bytes):
        return [plain(part, times=times) for part in thing]
    return thing
