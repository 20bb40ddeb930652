"""A mixed load of the Python client, which keeps account: what was asked for, what was answered, and what every watch
saw of it.

Each writer has one write at a time under way, and says as its message which one it is: so every commit tells what made
it, and it shows when one is lost, or applied twice. What is kept does not grow with the time that it runs.
"""

import asyncio
import functools
import random
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import comity
from comity import Client, ComityError, Commit, Increment, Resync, Transaction
from comity import sync as blocking
from comity.recipes import Lock

ACCOUNTS = [f"account/{number}" for number in range(6)]
OPENING = 100  # in each account
COUNTED = "counted"
GUARDED = "guarded"  # counted up by who holds the lock
OWN = "own/"  # a key for each that puts under conditions
PRESENT = "present/"  # keys that live by leases
END = "end"  # the last key that is written: watches end when they see it
KEPT = 100  # writes of each writer for which it is remembered who saw them
TIMEOUT = 30.0  # seconds that a call may take, which is a lot of restarts

Judge = Callable[[str, ComityError], None]


class Books:
    """What was asked for and answered. The tag of a write is `WRITER#NUMBER`."""

    def __init__(self, asked: Counter[str] | None = None) -> None:
        self.asked = Counter() if asked is None else asked  # the last number of each writer
        self.answered: dict[tuple[str, int], int] = {}  # the revision that each made; 0: it was not said
        self.unknown: set[tuple[str, int]] = set()  # those that failed, and may have been applied
        self.made: Counter[str] = Counter()  # how many of each kind a follower saw
        self.followers: list[Follower] = []
        self.watches = 0  # which have seen the end
        self.longest = 0.0  # seconds that a call took

    @contextmanager
    def writing(self, writer: str) -> Iterator["Write"]:
        """The next write of a writer, which sets its revision when it is answered."""
        self.asked[writer] += 1
        write = Write(writer, self.asked[writer])
        began = time.monotonic()
        try:
            yield write
        except BaseException:
            self.unknown.add((writer, write.number))
            raise
        self.answered[writer, write.number] = write.revision
        self.longest = max(self.longest, time.monotonic() - began)

    def settle(self) -> None:
        """Hold what was answered against what every follower saw, and forget what all of them have."""
        for tag, revision in list(self.answered.items()):
            saw = [follower.seen[tag[0]].get(tag[1]) for follower in self.followers]
            for seen in saw:
                assert seen is None or revision in (0, seen), f"{tag} was answered {revision}, and seen at {seen}"
            if all(saw):
                del self.answered[tag]

    def check(self) -> None:
        """When all has been seen: nothing that was answered is missing."""
        self.settle()
        assert not self.answered, "answered, and not in the history"
        for follower in self.followers:
            assert follower.made == self.followers[0].made
            assert follower.digest == self.followers[0].digest, "one saw commits that another did not"
            assert follower.state == self.followers[0].state
        assert self.watches == len(self.followers)


class Write:
    """A write that is under way."""

    def __init__(self, writer: str, number: int) -> None:
        self.number = number
        self.message = f"{writer}#{number}"
        self.revision = 0


class Follower:
    """Replays what a watch shows, and holds each commit against what must be true of every one."""

    def __init__(self, books: Books) -> None:
        self.revision = 0
        self.digest = 0  # of the revisions that made a change: a lease that is granted changes no key
        self.state: dict[str, object] = {}
        self.versions: dict[str, int] = {}
        self.seen: defaultdict[str, dict[int, int]] = defaultdict(dict)  # the last of each writer, with their revisions
        self.made: Counter[str] = Counter()  # by the kinds of writers
        self.expired = 0  # keys whose leases ran out
        self.ended = False
        self._books = books
        books.followers.append(self)

    def see(self, commit: Commit | Resync) -> None:
        assert isinstance(commit, Commit), f"after {self.revision} there is a gap"
        assert commit.revision > self.revision, f"after {self.revision} comes {commit.revision}"
        self.revision = commit.revision
        if commit.events:
            self.digest = zlib.crc32(b"%d" % commit.revision, self.digest)
        if "#" in commit.message:  # the recipes say their own
            self._note(commit)
        for event in commit.events:
            if event.cause is comity.EventCause.LEASE_EXPIRY and not self.ended:
                self.expired += 1
            if event.is_put:
                assert event.entry.version == self.versions.get(event.key, 0) + 1, f"{event.key} lacks a version"
                self.state[event.key] = event.entry.value
                self.versions[event.key] = event.entry.version
            else:
                del self.state[event.key], self.versions[event.key]
        if ACCOUNTS[0] in self.state:
            balances = [number(self.state[account]) for account in ACCOUNTS]
            assert (sum(balances), min(balances) >= 0) == (OPENING * len(ACCOUNTS), True), balances
        if END in self.state and not self.ended:
            self.ended = True
            self._books.watches += 1

    def _note(self, commit: Commit) -> None:
        writer, _, text = commit.message.partition("#")
        sequence = int(text)
        assert sequence <= self._books.asked[writer], commit.message
        seen = self.seen[writer]
        assert sequence not in seen, f"{commit.message} was applied twice: {seen[sequence]} and {commit.revision}"
        seen[sequence] = commit.revision
        self.made[writer.partition("-")[0]] += 1
        for old in [one for one in seen if one < sequence - KEPT and (writer, one) not in self._books.answered]:
            del seen[old]


def number(value: object) -> int:
    assert isinstance(value, int)
    return value


class Mixed:
    """The load: one of each kind at each of several orders of addresses.

    Args:
        namespace: which is its own.
        pause: seconds between two calls of one that makes them, at random up to twice that.
        ttl: of leases, in seconds.
        judge: told of what a call raises, before it goes on with the next; without it, that is the end.
        connecting: how else clients connect.
    """

    def __init__(
        self,
        namespace: str,
        *,
        pause: float = 0.0,
        ttl: float = 6.0,
        judge: Judge | None = None,
        connecting: Mapping[str, Any] | None = None,
    ) -> None:
        self.books = Books()
        self.namespace = namespace
        self.ended = False
        self.steps: Counter[str] = Counter()  # that came to their end, of each that makes calls
        self.versions: dict[str, int] = {}  # of own keys, as they were answered
        self._pause = pause
        self._ttl = ttl
        self._judge = judge
        self._connecting: dict[str, Any] = {"namespace": namespace, "timeout": TIMEOUT, **(connecting or {})}
        self._holders = 0  # of the lock
        self._dice = random.Random(namespace)

    def connect(self, address: str) -> Client:
        return comity.connect(address, **self._connecting)

    async def begin(self, client: Client) -> None:
        """Write what the load begins with."""
        await client.transact(then=[comity.Put(account, OPENING) for account in ACCOUNTS])

    async def run(self, addresses: Sequence[str]) -> None:
        """Until `ended` is set: a client for each of the addresses, which may each be several with commas."""
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as watching:
            pool = stack.enter_context(ThreadPoolExecutor(2 * len(addresses)))
            in_thread = functools.partial(asyncio.get_running_loop().run_in_executor, pool)
            threads = [blocking.connect(address, **self._connecting) for address in addresses]
            for thread in threads:
                stack.push_async_callback(asyncio.to_thread, thread.close)
            for address, thread in zip(addresses, threads, strict=True):
                watching.create_task(self._follow(address))
                watching.create_task(self._follow_events(address))
                watching.create_task(_wait(in_thread(self._follow_in_a_thread, thread)))
            async with asyncio.TaskGroup() as working:
                for place, (address, thread) in enumerate(zip(addresses, threads, strict=True)):
                    working.create_task(self._client(address, str(place)))
                    working.create_task(_wait(in_thread(self._work_in_a_thread, thread, f"thread-{place}")))
            async with self.connect(addresses[0]) as client:
                await client.put(END, True)

    def advanced(self, least: int = 1) -> Callable[[], bool]:
        """A condition: each that makes calls has made so many more."""
        behind = self.behind(least)
        return lambda: not behind()

    def behind(self, least: int = 1) -> Callable[[], list[str]]:
        """Tells which of those that make calls have not made so many more."""
        before = dict(self.steps)
        return lambda: [name for name, count in before.items() if self.steps[name] < count + least]

    def begun(self) -> bool:
        """Whether each that makes calls has made one."""
        return bool(self.steps) and all(self.steps.values())

    # Those that make calls

    async def _client(self, address: str, place: str) -> None:
        async with self.connect(address) as client, asyncio.TaskGroup() as group:

            def work(step: Callable[[Client, str], Awaitable[None]], kind: str) -> None:
                name = f"{kind}-{place}"
                group.create_task(self._repeat(client, step, name), name=name)

            work(self._put, "put")
            work(self._count, "count")
            work(self._transfer, "transfer")
            work(self._list, "list")
            work(self._lock, "lock")
            work(self._look, "look")
            group.create_task(self._be_present(client, f"present-{place}"))

    async def _repeat(self, client: Client, step: Callable[[Client, str], Awaitable[None]], name: str) -> None:
        self.steps[name] = 0
        while not self.ended:
            try:
                await step(client, name)
            except ComityError as error:
                self._failed(name, error)
            self.steps[name] += 1
            await asyncio.sleep(self._seconds())

    def _failed(self, name: str, error: ComityError) -> None:
        if self._judge is None:
            raise error
        self._judge(name, error)

    def _seconds(self) -> float:
        return self._dice.uniform(0, 2 * self._pause)

    async def _put(self, client: Client, name: str) -> None:
        """A put under the condition that nobody else wrote."""
        if name not in self.versions:
            entry = await client.get(OWN + name)
            self.versions[name] = entry.version if entry else 0
        before = self.versions.pop(name)
        with self.books.writing(name) as write:
            put = await client.put(OWN + name, write.number, if_version=before, message=write.message)
            write.revision = put.revision
        assert put.version == before + 1
        self.versions[name] = put.version

    async def _count(self, client: Client, name: str) -> None:
        with self.books.writing(name) as write:
            write.revision = (await client.transact(then=[Increment(COUNTED, 1)], message=write.message)).revision

    async def _transfer(self, client: Client, name: str) -> None:
        source, target = self._dice.sample(ACCOUNTS, 2)
        wanted = self._dice.randint(1, 40)

        async def transfer(tx: Transaction) -> None:
            there, here = await tx.get(source), await tx.get(target)
            assert there is not None
            assert here is not None
            amount = min(there.value, wanted)
            tx.put(source, there.value - amount)
            tx.put(target, here.value + amount)

        with self.books.writing(name) as write:
            await client.transact(transfer, message=write.message)

    async def _list(self, client: Client, name: str) -> None:
        """A list shows at least what was answered before."""
        known = dict(self.versions)
        listed = {entry.key: entry.version async for entry in client.list(OWN, page_size=2)}
        for own, version in known.items():
            assert listed.get(OWN + own, 0) >= version, own

    async def _lock(self, client: Client, name: str) -> None:
        async with Lock(client, "only", ttl=self._ttl) as lock:
            assert not self._holders, "two have the lock"
            self._holders += 1
            try:
                before = await client.get(GUARDED)
                with self.books.writing(name) as write:
                    value = before.value + 1 if before else 1
                    put = await client.put(GUARDED, value, guard=lock, message=write.message)
                    write.revision = put.revision
            finally:
                self._holders -= 1

    async def _look(self, client: Client, name: str) -> None:
        """A short watch, from a little while ago."""
        last = (await client.namespace_info()).revision
        begin = max(1, last - 5)
        async with client.watch(from_revision=begin) as watch:
            async for commit in watch.commits():
                assert isinstance(commit, Commit)
                assert commit.revision >= begin
                if commit.revision > last:
                    return
                begin = commit.revision + 1

    async def _be_present(self, client: Client, name: str) -> None:
        """Hold one lease all the time."""
        self.steps[name] = 0
        while not self.ended:
            try:
                async with client.lease(self._ttl) as lease:
                    while not self.ended:
                        with self.books.writing(name) as write:
                            put = await client.put(
                                PRESENT + name, write.number, lease=lease, guard=lease, message=write.message
                            )
                            write.revision = put.revision
                        lease.check()
                        self.steps[name] += 1
                        await asyncio.sleep(self._seconds())
            except ComityError as error:
                self._failed(name, error)
                await asyncio.sleep(self._seconds())

    def _work_in_a_thread(self, client: blocking.Client, name: str) -> None:
        self.steps[name] = 0
        while not self.ended:
            try:
                with self.books.writing(name) as write:
                    counted = client.transact(then=[Increment(COUNTED, 1)], message=write.message)
                    write.revision = counted.revision
                entry = client.get(COUNTED)
                assert entry is not None
                assert entry.mod_revision >= counted.revision
            except ComityError as error:
                self._failed(name, error)
            self.steps[name] += 1
            time.sleep(self._seconds())

    # Those that watch

    async def _follow(self, address: str) -> None:
        follower = Follower(self.books)
        async with self.connect(address) as client, client.watch(from_revision=1) as watch:
            async for commit in watch.commits():
                follower.see(commit)
                if follower.ended:
                    return

    async def _follow_events(self, address: str) -> None:
        """The keys of one prefix, by events: each version of each key once."""
        versions: dict[str, int] = {}
        async with self.connect(address) as client, client.watch("") as watch:
            await watch.ready()
            async for event in watch:
                assert not isinstance(event, Resync)
                if event.key == END:
                    return
                if event.is_delete:
                    versions.pop(event.key, None)
                else:
                    assert event.entry.version == versions.get(event.key, event.entry.version - 1) + 1
                    versions[event.key] = event.entry.version

    def _follow_in_a_thread(self, client: blocking.Client) -> None:
        follower = Follower(self.books)
        with client.watch(from_revision=1) as watch:
            for commit in watch.commits():
                follower.see(commit)
                if follower.ended:
                    return


async def _wait(future: "asyncio.Future[None]") -> None:
    await future
