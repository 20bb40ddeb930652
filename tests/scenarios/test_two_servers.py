"""Two servers over one Redis, of which one or the other is killed all the time, while many clients contend at both.

Clients move money between accounts, and count. What each was answered holds to the end, and the watches, on either
server and from one to the other, show one history: every commit once, in order, and money in none of them made or lost.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial

import pytest

import comity
from comity import Client, Commit, Increment, Put, Transaction
from tests import servers
from tests.redis_servers import RedisServer, program
from tests.servers import Server
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

SOAK = os.environ.get("COMITY_SOAK") == "1"
KILLS = 150 if SOAK else 4
CLIENTS = 8 if SOAK else 4  # at each server
BETWEEN = (40, 120) if SOAK else (20, 60)  # counts between two kills
NAMESPACE = "bank"
ACCOUNTS = [f"account/{number}" for number in range(6)]
OPENING = 100  # in each account
SECONDS = 60.0  # that a call may take: a server is away for some of them


class Poor(Exception):
    """There is not enough on an account."""


class Follower:
    """Replays what a watch shows, and holds each commit against what must be true of every one."""

    def __init__(self) -> None:
        self.revision = 0
        self.state: dict[str, object] = {}
        self.states: dict[int, Mapping[str, object]] = {}  # after each commit

    async def follow(self, client: Client) -> None:
        """From where it is, until cancelled."""
        async with client.watch(from_revision=self.revision + 1) as watch:
            async for commit in watch.commits():
                assert isinstance(commit, Commit), commit
                self.see(commit)

    def see(self, commit: Commit) -> None:
        assert commit.revision == self.revision + 1
        for event in commit.events:
            if event.entry.key.startswith("receipt/"):
                assert event.is_create, f"{event.entry.key} was applied twice"
            self.state[event.entry.key] = event.entry.value
        balances = [self.state[account] for account in ACCOUNTS]
        assert sum(map(number, balances)) == OPENING * len(ACCOUNTS)
        assert min(map(number, balances)) >= 0
        self.revision = commit.revision
        self.states[commit.revision] = dict(self.state)


def number(value: object) -> int:
    assert isinstance(value, int)
    return value


async def transfer(tx: Transaction, source: str, target: str, amount: int, receipt: str) -> None:
    there, here = await tx.get(source), await tx.get(target)
    assert there is not None
    assert here is not None
    if there.value < amount:
        raise Poor
    tx.put(source, there.value - amount)
    tx.put(target, here.value + amount)
    tx.put(f"receipt/{receipt}", amount)


class Bank:
    """The servers, their clients, and what these were answered."""

    def __init__(self, own: list[Server], stack: AsyncExitStack) -> None:
        self.servers = own
        self.stack = stack
        self.receipts: dict[str, int] = {}
        self.counted = 0
        self.marks: dict[str, int] = {}
        self.forks: dict[str, int] = {}
        self.ended = False
        self.followers = [Follower() for _ in range(3)]

    async def client(self, *of: int) -> Client:
        """A client of some of the servers, each with connections of its own."""
        addresses = ",".join(self.servers[place].address for place in of)
        return await self.stack.enter_async_context(comity.connect(addresses, namespace=NAMESPACE, timeout=SECONDS))

    async def work(self, client: Client, name: str) -> None:
        """One client: transfers, and counts between them."""
        dice, turn = random.Random(name), 0
        while not self.ended:
            turn += 1
            source, target = dice.sample(ACCOUNTS, 2)
            amount, receipt = dice.randint(1, 40), f"{name}-{turn}"
            try:
                await client.transact(partial(transfer, source=source, target=target, amount=amount, receipt=receipt))
            except Poor:
                pass
            else:
                self.receipts[f"receipt/{receipt}"] = amount
            await client.transact(then=[Increment("counted", 1)])
            self.counted += 1

    async def name_some(self, client: Client) -> None:
        """Checkpoints and forks, and history that is forgotten once every follower has seen it."""
        turn = 0
        while not self.ended:
            turn += 1
            self.marks[f"mark-{turn}"] = (await client.checkpoint(f"mark-{turn}")).revision
            fork = await client.fork(f"fork-{turn}")
            self.forks[fork.namespace] = (await fork.namespace_info()).fork_revision
            seen = min(follower.revision for follower in self.followers)
            if seen:
                await client.compact(seen)
            await until(partial(self.has_come, seen + BETWEEN[0]), SECONDS)

    def has_come(self, revision: int) -> bool:
        return self.ended or self.followers[0].revision >= revision

    async def kill_some(self) -> None:
        """One server after the other. A follower moves from each to the other, by its revision."""
        dice = random.Random(KILLS)
        clients = [await self.client(0), await self.client(1)]
        for turn in range(KILLS):
            moving = asyncio.create_task(self.followers[2].follow(clients[turn % 2]))
            await until(partial(self.has_counted, self.counted + dice.randint(*BETWEEN)), SECONDS)
            self.servers[turn % 2].kill()
            await asyncio.to_thread(self.servers[turn % 2].restart)
            await ended(moving)
        self.ended = True

    def has_counted(self, wanted: int) -> bool:
        return self.counted >= wanted

    async def check(self, place: int) -> None:
        """That at a server everything is so as it was answered, and seen."""
        client, seen = await self.client(place), self.followers[0].states
        state = await contents(client)
        info = await client.namespace_info()
        assert state["counted"] == self.counted
        assert {key: value for key, value in state.items() if key.startswith("receipt/")} == self.receipts
        assert info.revision == 1 + self.counted + len(self.receipts)
        for follower in self.followers:
            assert follower.revision == info.revision
            assert follower.state == state
            assert follower.states == seen
        for mark, revision in self.marks.items():
            assert (await client.get_checkpoint(mark)).revision == revision
            assert await contents(client, revision) == seen[revision]
        for name, revision in self.forks.items():
            assert await contents(client.with_options(namespace=name)) == seen[revision]


async def contents(client: Client, revision: int = 0) -> dict[str, object]:
    return {entry.key: entry.value async for entry in client.list(revision=revision)}


async def ended(following: asyncio.Task[None]) -> None:
    """End what would go on for ever. Raises what it has met."""
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
async def bank(redis: RedisServer) -> AsyncIterator[Bank]:
    async with AsyncExitStack() as stack:
        starts = [asyncio.to_thread(servers.start, "--store", redis.url) for _ in range(2)]
        own = [stack.enter_context(server) for server in await asyncio.gather(*starts)]
        yield Bank(own, stack)


@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 120)
async def test_money_is_neither_made_nor_lost(bank: Bank) -> None:
    client = await bank.client(0, 1)
    await client.transact(then=[Put(account, OPENING) for account in ACCOUNTS])
    following = [asyncio.create_task(bank.followers[place].follow(await bank.client(place))) for place in range(2)]
    async with asyncio.TaskGroup() as group:
        for place in range(2):
            for turn in range(CLIENTS):
                group.create_task(bank.work(await bank.client(place), f"{place}.{turn}"))
        group.create_task(bank.name_some(await bank.client(1, 0)))
        group.create_task(bank.kill_some())
    following.append(asyncio.create_task(bank.followers[2].follow(client)))
    last = (await client.namespace_info()).revision

    def have_seen_all() -> bool:
        return all(follower.revision == last for follower in bank.followers) or any(task.done() for task in following)

    await until(have_seen_all, SECONDS)
    for task in following:
        await ended(task)
    assert bank.receipts
    assert bank.forks
    for place in range(2):
        await bank.check(place)
