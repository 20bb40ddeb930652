"""All that there is to namespaces: a life that leaves every kind of thing behind, and all that can be read of it."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from comity_server.errors import Compacted, NamespaceNotFound
from comity_server.model import (
    Condition,
    Delete,
    DeletePrefix,
    DropCheckpoint,
    Fork,
    Get,
    Increment,
    List,
    MakeCheckpoint,
    Merge,
    Put,
    RequestId,
    Restore,
    Strategy,
    Test,
    Transaction,
    Write,
)
from comity_server.stores.protocol import Store
from tests.contract.space import HOUR, Space, plain

NAMES = ["plain", "parent", "fork", "inner", "gone", "again", "empty"]


class Opened(Protocol):
    """A store that is open."""

    @property
    def store(self) -> Store: ...

    def space(self, name: str) -> Space: ...


async def readable(space: Space) -> list[int]:
    found = []
    for revision in range(1, await space.revision() + 1):
        try:
            await space.get("a", revision)
        except Compacted:
            continue
        found.append(revision)
    return found


async def everything(opened: Opened) -> dict[str, Any]:
    """All that can be read of the namespaces of a store, by what it is."""
    held: dict[str, Any] = {"namespaces": list(await opened.store.namespaces("", limit=100))}
    for name in NAMES:
        space = opened.space(name)
        held[f"{name}: position"] = await space.position()
        held[f"{name}: log"] = plain(await space.log())
        revisions = await readable(space)
        held[f"{name}: states"] = {number: plain(await space.entries(revision=number)) for number in revisions}
        held[f"{name}: provenance"] = dict(await opened.store.provenance(name, range(1, await space.revision() + 1)))
        try:
            held[f"{name}: info"] = await space.info()
            leases = await opened.store.leases(name, limit=100)
            held[f"{name}: leases"] = [(lease, keys) for lease, _, keys in leases]
            held[f"{name}: checkpoints"] = list(await opened.store.checkpoints(name, {}, limit=100))
        except NamespaceNotFound:
            continue
        held[f"{name}: diffs"] = [plain(await space.differences(number)) for number in revisions]
    return held


async def live(opened: Opened) -> None:
    """Fill the namespaces with all that there is."""
    space = opened.space("plain")
    await space.put("empty", b"")
    await space.put("zero", b"\0" * 3, "application/octet-stream")
    await space.put("é/ü\U0010ffff", "ß\U0001f600".encode(), "text/plain; charset=utf-8")
    await space.put("large", bytes(range(256)) * 4096)
    await space.put("k" * 1024, b"1")
    await space.commit(
        Transaction(
            then=[Put("z", b"1", ttl=HOUR), Put("a", b"1"), Increment("n", -(2**53) + 1), Delete("zero")],
            author="ann é",
            message="in this order\nwith \0 nothing left out",
            trace_parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
    )
    await space.apply(Delete("a"), Put("zero", b"again"), DeletePrefix("e"))
    await space.checkpoint("early", 3, message="é", env="prod", é="ü", empty="")
    await space.checkpoint("above")
    await space.checkpoint("dropped")
    await space.drop("dropped")
    await space.compact(6)
    await space.put("a", b"after the floor")
    await space.delete("z")

    parent, fork, inner = (opened.space(name) for name in ("parent", "fork", "inner"))
    await parent.commit(
        Transaction(then=[Put(key, key.encode(), ttl=HOUR) for key in "abcdef"], author="pat", message="begin")
    )
    await parent.put("a", b"2")
    await fork.commit(Fork(parent="parent", ref=1, author="fay", message="to try"))
    await fork.apply(Put("a", b"fork"), Delete("b"), Put("g", b""))
    await fork.checkpoint("forks")
    await fork.commit(Restore(ref=2, prefix="g", author="rex"))
    await fork.compact()
    await inner.commit(Fork(parent="fork"))
    await inner.apply(Put("c", b"inner"), Delete("a"))
    await parent.commit(Merge(fork="fork", strategy=Strategy.THEIRS, author="max"))
    await parent.compact()
    await parent.store.delete_namespace("parent")
    await fork.store.delete_namespace("fork")
    await parent.put("new", b"of the same name")

    gone, again, empty = (opened.space(name) for name in ("gone", "again", "empty"))
    for space in (gone, again):
        for _ in range(5):
            await space.put("a")
        await space.checkpoint("one", 2)
        await space.store.delete_namespace(space.name)
    await again.put("a", b"again")
    await again.checkpoint("one")
    lease = await again.grant(author="lea")
    await again.apply(Put("b", b"leased", lease_id=lease.id), Put("c", b"", ttl=2 * HOUR))
    await empty.put("a")
    await empty.delete("a")
    await empty.compact()


class Sent(NamedTuple):
    namespace: str
    write: Write


def request(sequence: int, awaited: int = 0, client: str = "é\U0001f600") -> RequestId:
    return RequestId(client, sequence, awaited)


WRITES: list[Callable[[RequestId], Sent]] = [
    lambda name: Sent("r", Transaction(then=[Put("a", b"1")], request_id=name)),
    lambda name: Sent("r", Transaction(then=[Put("b", b"\xff\0")], request_id=name)),
    lambda name: Sent(
        "r",
        Transaction(
            then=[
                Put("a", b"2", "text/plain", return_previous=True),
                Get("b"),
                Get("absent"),
                List("", 1),
                List("", 5, keys_only=True),
                Increment("n", 5),
                Delete("b", return_previous=True),
                DeletePrefix("x"),
            ],
            request_id=name,
        ),
    ),
    lambda name: Sent(
        "r",
        Transaction(
            [Condition("a", Test.VALUE, b"\xfe"), Condition("", Test.UNCHANGED_SINCE, 1, is_prefix=True)],
            [],
            [Put("c", b"")],
            request_id=name,
        ),
    ),
    lambda name: Sent("r", MakeCheckpoint(name="one", labels=(("é", ""), ("k", "v")), message="m", request_id=name)),
    lambda name: Sent("r", Restore(ref=1, request_id=name)),
    lambda name: Sent("r.fork", Fork(parent="r", ref="one", request_id=name)),
    lambda name: Sent("r.fork", Transaction(then=[Put("a", b"\xf0"), Put("f", b"")], request_id=name)),
    lambda name: Sent("r", Merge(fork="r.fork", strategy=Strategy.OURS, request_id=name)),
    lambda name: Sent("r", Transaction(then=[Put("a", b"ours"), Delete("f")], request_id=name)),
    lambda name: Sent("r", Merge(fork="r.fork", strategy=Strategy.THEIRS, request_id=name)),
    lambda name: Sent("r", DropCheckpoint(name="one", request_id=name)),
    lambda name: Sent("r", Transaction(then=[DeletePrefix("", return_previous=True)], request_id=name)),
]
