"""The user that docs/stores.md tells to make for the server: may do all that the server does, and nothing besides."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import redis

from comity_server.errors import StateError, StoreFull, StoreUnavailable
from comity_server.limits import Limits, Retention
from comity_server.model import Commit, Condition, Fork, MakeCheckpoint, Put, RequestId, Test, Transaction
from comity_server.stores.copy import ends
from comity_server.stores.copy.run import copy
from comity_server.stores.protocol import Store
from comity_server.stores.url import open_store
from tests.contract.space import HOUR, SECOND, Space
from tests.redis_servers import RedisCluster, RedisServer, Replicated
from tests.waiting import until

DOCS = (Path(__file__).parents[2] / "docs" / "stores.md").read_text()
(USER,) = re.findall(r"^user comity (on >PASSWORD .*)$", DOCS, re.MULTILINE)
MORE: dict[str, str] = dict(re.findall(r"^\| (.*?) \| `(\+.*)` \|$", DOCS, re.MULTILINE))
CREDENTIALS = "comity:PASSWORD@"


def more(word: str) -> Sequence[str]:
    """What is allowed besides, in a case."""
    (words,) = (words for where, words in MORE.items() if word in where)
    return words.replace("\\|", "|").split()


class Users:
    """The user, made on several servers."""

    def __init__(self, servers: Sequence[RedisServer], *besides: str) -> None:
        self._words = [*USER.split(), *besides]
        self._stack = ExitStack()
        self._clients = [self._stack.enter_context(server.client()) for server in servers]

    def __enter__(self) -> "Users":
        for client in self._clients:
            client.execute_command("ACL", "SETUSER", "comity", "reset", *self._words)
            client.config_resetstat()
            client.execute_command("ACL", "LOG", "RESET")
        return self

    def __exit__(self, *exception: object) -> None:
        for client in self._clients:
            client.execute_command("ACL", "DELUSER", "comity")
        self._stack.close()

    def fill(self, full: bool = True) -> None:
        """Leave no memory, or all that is wanted."""
        for client in self._clients:
            client.config_set("maxmemory", 1 if full else 0)

    def lose(self, prefix: str, name: str) -> None:
        """Take a namespace back to where it stood one revision before."""
        for client in self._clients:
            try:
                client.hincrby(f"{prefix}:{{{name}}}:meta", "revision", -1)
            except redis.ResponseError:  # not here
                continue

    def unused(self) -> set[str]:
        """The commands that the user is allowed and that were not run."""
        allowed = {word[1:].partition("|")[0] for word in self._words if word.startswith("+")}
        run = {name[8:].partition("|")[0] for client in self._clients for name in client.info("commandstats")}
        return allowed - run

    def refused(self) -> set[str]:
        """What the user was refused. The library's own name it says only where it may."""
        log = [entry for client in self._clients for entry in client.execute_command("ACL", "LOG")]
        return {entry[b"object"].decode() for entry in log} - {"client"}


@asynccontextmanager
async def opened(url: str, wait_replicas: int) -> AsyncIterator[Store]:
    store = open_store(url, Limits(), wait_replicas=wait_replicas)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


class Listening:
    def __init__(self) -> None:
        self.heard: list[int] = []

    def publish(self, commits: Sequence[Commit]) -> None:
        self.heard += [commit.revision for commit in commits]

    def reset(self) -> None:
        """It is loaded anew."""


async def everything(url: str, users: Users, wait_replicas: int) -> None:
    """All that a store does, through one and seen through another, with a Redis that gives it trouble."""
    async with opened(url, wait_replicas) as one, opened(url, wait_replicas) as other:
        space = Space(one, "n")
        heard = Listening()
        await other.follow("n", heard)
        await space.put("k", b"v" * 100)
        await space.put("long", b"v" * 3_000_000)
        await space.commit(MakeCheckpoint(name="mark"))
        await space.apply(Put("k", b"w"), request_id=RequestId("client", 1))
        lease = await Space(other, "leased").grant(HOUR)
        await Space(one, "leased").put_for(60 * SECOND, "k")
        await one.keep_alive("leased", [lease.id])
        assert (await one.lease("leased", lease.id)).key_count == 0
        assert await other.due() == {}
        absent = Condition("nothing", Test.EXISTS, 1)
        await space.commit(Transaction(conditions=(absent,), then=(Put("k", b"x"),)))  # which changes nothing
        assert await Space(other, "n").keys() == ["k", "long"]
        await until(lambda: heard.heard == [1, 2, 3])
        for fork, parent in (("fork", "n"), ("twig", "fork")):
            (begun,) = await one.commit(fork, [Fork(parent=parent)])
            assert not isinstance(begun, StateError)
        await one.delete_namespace("fork")  # of which the twig has need
        await one.retain("n", Retention(commits=1))
        await one.compact("n")
        await one.delete_namespace("twig")
        await Space(one, "gone").put("k")
        await one.delete_namespace("gone")
        await one.retain("leased", Retention())
        await one.delete_namespace("leased")
        await one.sweep()
        assert [info.name for info in await other.namespaces("", limit=10)] == ["n"]
        users.fill()
        with pytest.raises(StoreFull):
            await space.put("k")
        users.fill(False)
        await until(one.writable)
        await space.put("k")
        assert (await other.get("n", "k")).revision == 4
        epoch = (await one.position("n")).epoch
        users.lose("comity", "n")
        assert (await one.position("n")).epoch != epoch
        await other.unfollow("n")


async def test_alone() -> None:
    with RedisServer() as server, Users([server], *more("database")) as users:
        await everything(f"redis://{CREDENTIALS}{server.address}", users, 0)
        assert users.unused() == {"select"}
        async with opened(f"redis://{CREDENTIALS}{server.address}/3", 0) as store:
            await Space(store, "n").put("k")
        assert users.unused() == set()
        assert users.refused() == set()


async def test_sentinels_and_replicas() -> None:
    with Replicated() as replicated, ExitStack() as stack:
        for sentinel in replicated.sentinels:
            client = stack.enter_context(sentinel.client())
            client.execute_command("ACL", "SETUSER", "looker", "on", ">p", "-@all", *more("Sentinels"))
        with Users(replicated.servers, *more("wait-replicas")) as users:
            url = replicated.url.replace("//", f"//{CREDENTIALS}", 1)
            await everything(f"{url}?sentinel_username=looker&sentinel_password=p", users, 1)
            assert users.unused() == set()
            assert users.refused() == set()
        for sentinel in replicated.sentinels:
            with sentinel.client() as client:
                log = client.execute_command("ACL", "LOG")
                assert {entry[b"object"] for entry in log} <= {b"client"}


async def test_a_cluster_whose_slots_move() -> None:
    with RedisCluster() as cluster, Users(cluster.nodes, *more("Cluster"), *more("wait-replicas")) as users:
        url = cluster.url.replace("//", f"//{CREDENTIALS}", 1)
        await everything(url, users, 1)
        for wait_replicas in (0, 1):
            async with opened(url, wait_replicas) as store:
                space = Space(store, f"moved-{wait_replicas}")
                for number in range(2):
                    await space.put(f"k{number}")
                    with cluster.moving(f"{{{space.name}}}"):
                        if not wait_replicas:
                            await space.put(f"meanwhile{number}")
                    await space.put(f"later{number}")
                assert (await store.position(space.name)).revision == (4 if wait_replicas else 6)
        assert users.unused() == set()
        assert users.refused() == set()


@pytest.mark.parametrize("words", ["-cluster", "-command", "+@all nopass >other resetpass"])
async def test_a_cluster_that_refuses_the_user(redis_cluster: RedisCluster, words: str) -> None:
    with Users(redis_cluster.nodes, *more("Cluster"), *words.split()):
        store = open_store(redis_cluster.url.replace("//", f"//{CREDENTIALS}", 1), Limits())
        with pytest.raises(StoreUnavailable, match="refuses the server's user"):
            await store.open()


async def test_copies(tmp_path: Path) -> None:
    file, back = (f"sqlite:{tmp_path / name}.db" for name in ("file", "back"))
    store = open_store(file, Limits())
    await store.open()
    space = Space(store, "n")
    for _ in range(3):
        await space.put("long", b"v" * 3_000_000)
    for fork, parent in (("fork", "n"), ("twig", "fork")):
        await Space(store, fork).commit(Fork(parent=parent, ref=1 if parent == "n" else None))
    await store.delete_namespace("fork")
    await Space(store, "twig").apply(Put("k", b"w"), request_id=RequestId("client", 1))
    await space.put_with(await space.grant(HOUR), "leased")
    await store.close()
    with RedisServer() as server, Users([server], *more("comity copy")) as users:
        url = f"redis://{CREDENTIALS}{server.address}"
        for source, target in ((file, url), (file, url), (url, back)):
            results = await copy(ends.reader(source), target)
            assert all(result.is_equal for result in results), results
        assert not users.unused() & {word[1:] for word in more("comity copy")}
        assert users.refused() == set()
