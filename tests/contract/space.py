"""One namespace of the store under test, with short words for what most tests do."""

import uuid
from collections.abc import Sequence

from comity_server.errors import StateError
from comity_server.limits import Limits
from comity_server.model import (
    Commit,
    Condition,
    Delete,
    DeletePrefix,
    Operation,
    Outcome,
    Page,
    Position,
    Put,
    RequestId,
    Transaction,
)
from comity_server.record import KEY, Record, size
from comity_server.stores.protocol import Store

LIMITS = Limits()


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

    async def group(self, *transactions: Transaction) -> Sequence[Outcome | StateError]:
        outcomes = await self.store.commit(self.name, transactions)
        assert len(outcomes) == len(transactions)
        return outcomes

    async def outcomes(self, *transactions: Transaction) -> list[Outcome]:
        """Of a group in which none fails."""
        outcomes = []
        for outcome in await self.group(*transactions):
            if isinstance(outcome, StateError):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    async def commit(self, transaction: Transaction) -> Outcome:
        (outcome,) = await self.outcomes(transaction)
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


def plain(thing: object, *, times: bool = True) -> object:
    """Outcomes, pages, commits in a form that compares by content: what is a list and what a tuple says nothing.

    Without `times`, entries and commits are compared by all but their time.
    """
    if isinstance(thing, Commit) and not times:
        thing = thing._replace(time=0)
    if type(thing) is tuple and len(thing) == 8 and isinstance(thing[0], str):  # an entry
        return thing if times else thing[:-1]
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return (type(thing).__name__, *(plain(part, times=times) for part in thing))
    if isinstance(thing, Sequence) and not isinstance(thing, str | bytes):
        return [plain(part, times=times) for part in thing]
    return thing
