"""Stores that share a Redis and compact at once, while all of them write and some of them die.

Whoever comes new then finds every write that was answered, every checkpoint, every fork, every lease that lives with
its key, and the outcome of every named write; and of what nobody can read any more Redis keeps nothing.
"""

import asyncio
import os
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pytest

from comity_server.errors import NamespaceNotFound, StateError, Unavailable
from comity_server.limits import Limits, Retention
from comity_server.model import (
    Checkpoint,
    Commit,
    Condition,
    DropCheckpoint,
    Expire,
    Fork,
    Grant,
    Increment,
    Lease,
    LeaseInfo,
    MakeCheckpoint,
    Operation,
    Outcome,
    Put,
    RequestId,
    Revoke,
    Test,
    Transaction,
    Write,
)
from comity_server.record import KEY, LEASE_ID, VALUE, Record
from comity_server.stores.redis import compaction
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.redis.url import parse
from tests.contract.space import HOUR, LIMITS, Space, own_lease, plain
from tests.redis_servers import RedisServer, program
from tests.stores.garbage import garbage
from tests.stores.small import small_steps
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

SOAK = os.environ.get("COMITY_SOAK") == "1"
STORMS = 200 if SOAK else 3
WRITES = 300 if SOAK else 60  # of each client
STORES = 3
CLIENTS = 5
NAMES = ("one", "two")
KEEP_ALL = Retention(commits=2**40, age=1e9, history_bytes=2**50)

T = TypeVar("T")


@pytest.fixture(autouse=True)
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps(monkeypatch)


class Died(Exception):
    """The process that was asked is not there any more."""


class Process:
    """A store as if in a process of its own, which can be killed."""

    def __init__(self, url: str) -> None:
        self.store = RedisStore(parse(url), Limits())
        self.tasks: set[asyncio.Task[Any]] = set()
        self.dead = False

    async def ask(self, question: Callable[[RedisStore], Awaitable[T]]) -> T:
        """Raises Died."""
        if self.dead:
            raise Died
        task = asyncio.ensure_future(question(self.store))
        self.tasks.add(task)
        try:
            await asyncio.wait([task])
            if self.dead:
                raise Died
            return task.result()
        finally:
            self.tasks.discard(task)

    async def kill(self) -> None:
        """Nothing that it began goes on."""
        self.dead = True

        async def ends(*_: object) -> Any:
            raise asyncio.CancelledError

        self.store._client.once = ends  # type: ignore[assignment, method-assign]
        for task in list(self.tasks):
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        await self.store.close()


class Heard:
    """A listener, which hears every commit once, in order."""

    def __init__(self) -> None:
        self.revision: int | None = None

    def publish(self, commits: Sequence[Commit]) -> None:
        for commit in commits:
            assert self.revision in (None, commit.revision - 1), f"after {self.revision} came {commit.revision}"
            self.revision = commit.revision

    def reset(self) -> None:
        self.revision = None


class Storm:
    """Clients that write to any of some processes, which compact and die; and what the clients were answered."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.dice = random.Random(seed)
        self.processes: list[Process] = []
        self.answered: list[tuple[str, Write, Outcome]] = []
        self.added = dict.fromkeys(NAMES, 0)
        self.values: dict[tuple[str, str], bytes] = {}
        self.marks: dict[tuple[str, str], tuple[Checkpoint, list[Record]]] = {}
        self.forks: dict[str, list[Record]] = {}
        self.leases: dict[tuple[str, str], int] = {}  # by the key that lives by each
        self.ended = False

    async def run(self) -> None:
        for _ in range(STORES):
            await self.begin()
        for name in NAMES:
            await self.insist(name, Transaction(then=[Put("begun", b"1")], request_id=RequestId("begin", 1)))
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(self.compact()) for _ in range(STORES)]
            others.append(group.create_task(self.kill()))
            async with asyncio.TaskGroup() as writers:
                for number in range(CLIENTS):
                    writers.create_task(self.write(f"c{number}", random.Random(self.dice.random())))
            self.ended = True
        await self.nothing_was_lost()
        await self.nothing_is_kept_for_nobody()
        for process in self.processes:
            await process.store.close()

    async def begin(self) -> None:
        process = Process(self.url)
        await process.store.open()
        for name in NAMES:
            heard = Heard()
            position = await process.store.follow(name, heard)
            heard.revision = position.revision
        self.processes.append(process)

    async def ask(self, question: Callable[[RedisStore], Awaitable[T]]) -> T:
        """Ask any process, and another one if it dies."""
        while True:
            with suppress(Died, Unavailable):
                return await self.dice.choice(self.processes).ask(question)

    async def insist(self, name: str, write: Write) -> Outcome:
        """Send a write until it is answered."""
        while True:
            (outcome,) = await self.ask(lambda store: store.commit(name, [write]))
            if isinstance(outcome, Outcome):
                self.answered.append((name, write, outcome))
                return outcome
            assert isinstance(outcome, Unavailable), outcome

    async def write(self, client: str, dice: random.Random) -> None:
        kinds = ["put"] * 6 + ["many", "large", "fail", "mark", "mark", "drop", "fork", "delete"]
        kinds += ["grant", "grant", "renew", "revoke", "expire"]
        for sequence in range(1, WRITES + 1):
            name, request, kind = dice.choice(NAMES), RequestId(client, sequence), dice.choice(kinds)
            own_marks = [mark for mark in self.marks if mark[1].startswith(f"{client}-")]
            own_leases = [lease for lease in self.leases if lease[1].startswith(f"{client}-")]
            own_forks = [fork for fork in self.forks if fork.startswith(f"{client}.")]
            match kind:
                case "put" | "many" | "large":
                    await self.put(name, f"{client}/{dice.randrange(5)}", kind, request)
                case "fail":
                    await self.fail(name, request)
                case "mark":
                    await self.mark(name, f"{client}-{sequence}", request)
                case "drop" if own_marks:
                    await self.drop(*dice.choice(own_marks), request)
                case "grant":
                    await self.grant(name, f"{client}-{sequence}", request)
                case "renew" | "revoke" | "expire" if own_leases:
                    await self.renew_or_end(*dice.choice(own_leases), kind, request)
                case "fork":
                    await self.fork(f"{client}.{sequence}", name, request)
                case "delete" if own_forks:
                    await self.delete(dice.choice(own_forks))

    async def put(self, name: str, key: str, kind: str, request: RequestId) -> None:
        value = b"%d " % request.sequence + (bytes(1500) if kind == "large" else b"")
        then: list[Operation] = [Put(key, value), Increment("sum", 1)]
        if kind == "many":
            then += [Put(f"{key}/{number}", value) for number in range(25)]
        await self.insist(name, Transaction(then=then, request_id=request))
        self.added[name] += 1
        self.values[name, key] = value

    async def fail(self, name: str, request: RequestId) -> None:
        never = Condition("begun", Test.EXISTS, 0)
        outcome = await self.insist(name, Transaction([never], [Put("begun", b"never")], request_id=request))
        assert not outcome.committed
        self.answered.pop()  # a repeat is judged anew

    async def mark(self, name: str, mark: str, request: RequestId) -> None:
        (made,) = (await self.insist(name, MakeCheckpoint(name=mark, request_id=request))).results
        assert isinstance(made, Checkpoint)
        found = await self.ask(lambda store: entries(store, name, made.revision))
        assert len(found) == made.key_count
        self.marks[name, mark] = made, found

    async def drop(self, name: str, mark: str, request: RequestId) -> None:
        await self.insist(name, DropCheckpoint(name=mark, request_id=request))
        del self.marks[name, mark]

    async def grant(self, name: str, key: str, request: RequestId) -> None:
        if request.sequence % 2:
            put = Transaction(then=[Put(key, b"", ttl=HOUR)], request_id=request)
            self.leases[name, key] = own_lease((await self.insist(name, put)).results[0])
            return
        (lease,) = (await self.insist(name, Grant(ttl=HOUR, author=key, request_id=request))).results
        assert isinstance(lease, Lease)
        named = request._replace(client=f"{request.client}-leased")
        await self.insist(name, Transaction(then=[Put(key, b"", lease_id=lease.id)], request_id=named))
        self.leases[name, key] = lease.id

    async def renew_or_end(self, name: str, key: str, how: str, request: RequestId) -> None:
        id = self.leases[name, key]
        if how == "renew":
            assert await self.ask(lambda store: store.keep_alive(name, [id])) == [HOUR]
            return
        if how == "revoke":
            await self.insist(name, Revoke(lease_id=id, request_id=request))
        else:
            await self.ask(partial(run_out, name, id))
            await self.insist(name, Expire(lease_ids=(id,)))
            self.answered.pop()  # it has no name
        del self.leases[name, key]

    async def fork(self, fork: str, name: str, request: RequestId) -> None:
        await self.insist(fork, Fork(parent=name, request_id=request))
        self.forks[fork] = await self.ask(lambda store: entries(store, fork))

    async def delete(self, fork: str) -> None:
        del self.forks[fork]
        with suppress(NamespaceNotFound):  # the one that did it has died
            await self.ask(lambda store: store.delete_namespace(fork))

    async def compact(self) -> None:
        while not self.ended:
            name = self.dice.choice([*NAMES, *self.forks])
            retention = Retention(commits=self.dice.choice([0, 3, 20]), age=1e9, history_bytes=2**50)
            compacts = self.dice.random() < 0.3
            with suppress(StateError):
                await self.ask(partial(compact, name, None if compacts else retention))
            if self.dice.random() < 0.1:
                self.dice.choice(self.processes).store._replicas.evict(time.monotonic() + 1)
            await asyncio.sleep(0)

    def is_past(self, answers: int) -> bool:
        return self.ended or len(self.answered) >= answers

    async def kill(self) -> None:
        while not self.ended:
            wanted = len(self.answered) + self.dice.randint(10, 40)
            await until(partial(self.is_past, wanted))
            victim = self.processes.pop(self.dice.randrange(STORES))
            await self.begin()
            await victim.kill()

    async def nothing_was_lost(self) -> None:
        new = RedisStore(parse(self.url), Limits())
        await new.open()
        for store in (new, *(process.store for process in self.processes)):
            for name in NAMES:
                found = {entry[KEY]: entry[VALUE] for entry in await entries(store, name)}
                assert int(found["sum"]) == self.added[name]
                assert {key: found[key] for on, key in self.values if on == name} == {
                    key: value for (on, key), value in self.values.items() if on == name
                }
                alive = {info.lease.id: info.key_count for info in await leases(store, name)}
                assert alive == {id: 1 for (on, _), id in self.leases.items() if on == name}
                leased = {key: self.leases[on, key] for on, key in self.leases if on == name}
                assert leased == {
                    entry[KEY]: entry[LEASE_ID] for entry in await entries(store, name) if entry[LEASE_ID]
                }
                marks = await store.checkpoints(name, {}, limit=1000)
                assert plain(marks) == plain([self.marks[on, mark][0] for on, mark in sorted(self.marks) if on == name])
            for (name, _), (made, held) in self.marks.items():
                found_at = await entries(store, name, made.revision)
                assert found_at == held, (store is new, made, set(found_at) ^ set(held))
            for fork, had in self.forks.items():
                assert await entries(store, fork) == had
        before = [await new.position(name) for name in NAMES]
        for name, write, outcome in self.answered:
            (again,) = await new.commit(name, [write])
            assert plain(again, times=False) == plain(outcome, times=False)
        assert [await new.position(name) for name in NAMES] == before
        await new.close()

    async def nothing_is_kept_for_nobody(self) -> None:
        stores = [process.store for process in self.processes]
        for name, mark in self.marks:
            await Space(self.dice.choice(stores), name).drop(mark)
        for (name, _), id in self.leases.items():
            await Space(self.dice.choice(stores), name).revoke(id)
        for fork in self.forks:
            await self.dice.choice(stores).delete_namespace(fork)
        for store in stores:
            await store.sweep()
        names = {*NAMES, *(name for name, _, _ in self.answered)}
        left: list[str] = []

        async def nothing() -> bool:
            for name in NAMES:
                for store in stores:
                    await store.retain(name, KEEP_ALL)
            left[:] = await garbage(stores[0], sorted(names))
            return not left

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compaction, "SPARE", 0)
            for name in NAMES:
                await stores[0].compact(name)
            try:
                await until(nothing, 5)
            except TimeoutError:
                pytest.fail(f"{left}")


async def compact(name: str, retention: Retention | None, store: RedisStore) -> None:
    if retention is None:
        await store.compact(name)
    else:
        await store.retain(name, retention)


async def run_out(name: str, id: int, store: RedisStore) -> None:
    """Have the time of a lease be up."""
    await store._client.call("ZADD", store._replicas.keys(name).deadlines(1), "XX", 1, id)


async def leases(store: RedisStore, name: str) -> Sequence[LeaseInfo]:
    return await store.leases(name, limit=LIMITS.page_entries)


async def entries(store: RedisStore, name: str, revision: int = 0) -> list[Record]:
    return await Space(store, name).entries(revision=revision)


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 120)
async def test_compactions_at_once(scanned_server: RedisServer) -> None:
    for seed in range(STORMS):
        try:
            await Storm(f"{scanned_server.url}?prefix=t-{uuid.uuid4().hex}", seed).run()
        except* Exception as error:
            raise AssertionError(f"in storm {seed}") from error
