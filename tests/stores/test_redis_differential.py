"""Memory beside Redis: whatever is done to a store in memory and to servers' stores over one Redis, they say the same.

What is done is drawn by seeds, and sent now to the one and now to the other of two stores over Redis, so that each has
to find out what the other did. They are closed and opened again in between, compact whenever they like, and tell
listeners of what they hear. COMITY_SEED names seeds of its own, such as `1,2,3`; a failure says which one it was.
"""

import asyncio
import itertools
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import pytest

from comity_server.errors import StateError
from comity_server.limits import Retention
from comity_server.model import Commit, Fork, Merge, NamespaceInfo, Position, Provenance, Ref, RequestId, Write
from comity_server.record import MOD_REVISION
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.protocol import Store
from comity_server.stores.redis import compaction
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.redis.url import parse
from tests.contract.space import Space, plain
from tests.redis_servers import RedisServer, program
from tests.stores.garbage import garbage
from tests.stores.program import CLIENTS, LIMITS, MARKS, NAMES, PREFIXES, Dice, named, shrunk
from tests.stores.small import small_steps

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

SOAK = os.environ.get("COMITY_SOAK") == "1"
SEEDS: Final = 2000 if SOAK else 8
STEPS: Final = 300 if SOAK else 150
ANSWER_SECONDS: Final = 20.0  # within which anything is answered
SHRINK_SECONDS: Final = 60.0

DRAWN: Final = {  # the steps of a program, and how often each is drawn
    "transact": 24,
    "read": 14,
    "turn": 10,
    "act": 10,
    "group": 8,
    "name": 8,
    "fork": 6,
    "repeat": 6,
    "merge": 5,
    "compact": 5,
    "retain": 5,
    "hear": 4,
    "await": 3,
    "delete": 3,
    "follow": 3,
    "evict": 2,
    "reopen": 2,
    "reuse": 1,
    "sweep": 1,
    "all": 1,
}

Answered = Callable[[Store], Awaitable[Any]]


@pytest.fixture(autouse=True)
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps(monkeypatch)


class Heard:
    """Listens to one namespace of one store."""

    def __init__(self) -> None:
        self.revision: int | None = None  # up to which all was heard; None: not known since the last reset
        self.commits: list[Commit] = []  # that were not looked at yet
        self.resets = 0

    def publish(self, commits: Sequence[Commit]) -> None:
        for commit in commits:
            assert self.revision in (None, commit.revision - 1), f"after {self.revision} came {commit.revision}"
            self.revision = commit.revision
            self.commits.append(commit)

    def reset(self) -> None:
        self.revision = None
        self.resets += 1


class World:
    """A model, and two stores over one Redis."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.model = MemoryStore(LIMITS)
        self.stores = [self.new() for _ in range(2)]
        self.place = 0  # of the store that is asked
        self.heard: list[dict[str, Heard]] = [{}, {}]
        self.history: dict[str, dict[int, Commit]] = {name: {} for name in NAMES}  # as the model told it
        self.resets: dict[tuple[int, str], int] = {}  # of the model, since a store was listened to
        self.sent: list[tuple[str, Write]] = []
        self.sequences = {client: itertools.count(1) for client in CLIENTS}
        self.trace: list[str] = []

    def new(self) -> RedisStore:
        return RedisStore(parse(self.url), LIMITS)

    async def run(self, program: Sequence[str]) -> None:
        for store in self.stores:
            await store.open()
        for name in NAMES:
            await self.model.follow(name, _Model(self, name))
        try:
            for seed in program:
                async with asyncio.timeout(6 * ANSWER_SECONDS):
                    await self.step(Dice(seed, self.model))
            async with asyncio.timeout(6 * ANSWER_SECONDS):
                await self.end()
        finally:
            for store in self.stores:
                await store.close()

    @property
    def store(self) -> RedisStore:
        return self.stores[self.place]

    async def same(self, what: str, ask: Answered) -> Any:
        """Ask the model and a store, which must say the same. Returns what the model says."""
        self.trace.append(f"{'AB'[self.place]} {what}")
        expected, got = await answer(self.model, ask), await answer(self.store, ask)
        assert told(got) == told(expected)
        return expected

    async def step(self, dice: Dice) -> None:
        kind = dice.choices(list(DRAWN), list(DRAWN.values()))[0]
        name = dice.name()
        match kind:
            case "transact":
                await self.commit(name, dice.transaction(name))
            case "act":
                await self.commit(name, dice.write(name))
            case "group":
                writes = [dice.write(name) for _ in range(dice.randint(2, 4))]
                await self.commit(name, *(self.name(dice, name, one) if dice.happens(0.3) else one for one in writes))
            case "fork":
                absent = [name for name in NAMES if name not in self.model.namespaces_by_name]
                fork = Fork(parent=name, ref=dice.ref(name))
                name = dice.choice(absent) if absent else name
                await self.commit(name, self.name(dice, name, fork) if dice.happens(0.3) else fork)
            case "merge":
                fork_name, into = dice.fork()
                write = dice.write(into)
                await self.commit(into, write if isinstance(write, Merge) else Merge(fork=fork_name))
            case "name":
                await self.commit(name, self.name(dice, name, dice.write(name)))
            case "await" if name in self.model.namespaces_by_name:
                write = dice.last_awaited(name, next(self.sequences["awaits"]))
                self.sent.append((name, write))
                await self.commit(name, write)
            case "repeat" if self.sent:
                on, write = dice.choice(self.sent)
                await self.commit(on, *[write] * dice.randint(1, 2))
            case "reuse" if self.sent:
                on, write = dice.choice(self.sent)
                assert write.request_id is not None
                await self.commit(on, named(dice.transaction(on), write.request_id))
            case "delete":
                await self.delete(name, dice.revision(name) if dice.happens(0.3) else None)
            case "compact":
                await self.compact(name, dice.choice([0, dice.revision(name)]))
            case "retain":
                retention = Retention(dice.choice([0, 1, 5, 20]), age=1e9, history_bytes=2**50)
                await self.store.position(name)  # what it has not loaded it may leave to others
                await self.same(f"retain {name} {retention}", lambda store: store.retain(name, retention))
            case "sweep":
                await self.same("sweep", lambda store: store.sweep())
            case "read":
                await self.read(dice, name)
            case "turn":
                self.place = 1 - self.place
            case "follow":
                await self.follow(name)
            case "hear":
                for each in NAMES:
                    await self.hear(self.place, each)
            case "evict":
                self.evict()
            case "reopen":
                await self.reopen()
            case "all":
                await self.all_agree(self.store)
        state = self.model.namespaces_by_name.get(name)
        self.trace.append(f"  {name} is at {state.revision if state else None}")
        if dice.happens(0.3):
            self.place = dice.randint(0, 1)
            await self.same(f"look at {name}", lambda store: summary(store, name))

    async def commit(self, name: str, *group: Write) -> None:
        await self.same(f"commit {name} {group}", lambda store: store.commit(name, group))

    def name(self, dice: Dice, on: str, write: Write) -> Write:
        client = dice.choices(CLIENTS, [10, 10, 1])[0]
        write = named(write, RequestId(client, next(self.sequences[client])))
        self.sent.append((on, write))
        return write

    async def read(self, dice: Dice, name: str) -> None:
        revision, prefix, limit = dice.revision(name), dice.choice(PREFIXES), dice.randint(1, 5)
        base, target = dice.ref(name), dice.ref(name)
        last = revision + dice.randint(-2, 20)
        newest_first = dice.happens(0.5)
        reads: dict[str, Answered] = {
            f"entries {prefix!r} at {revision} by {limit}": lambda store: entries(store, name, prefix, revision, limit),
            f"diff {base} {target} {prefix!r}": lambda store: differences(store, name, base, target, prefix, limit),
            f"commits {revision} {last} {limit} {newest_first}": lambda store: store.commits(
                name, first=revision, last=last, limit=limit, newest_first=newest_first
            ),
            f"origins at {revision}": lambda store: origins(store, name, revision),
            "checkpoint": lambda store: store.checkpoint(name, MARKS[limit % len(MARKS)]),
            f"checkpoints {limit}": lambda store: store.checkpoints(name, {"k": "v"}, after="o", limit=limit),
            f"namespaces {limit}": lambda store: store.namespaces("", after="a", limit=limit),
            "position": lambda store: store.position(name),
        }
        what = dice.choice(list(reads))
        await self.same(f"{what} of {name}", reads[what])

    def evict(self) -> None:
        """As if nobody had asked for a long time."""
        self.trace.append(f"{'AB'[self.place]} evict")
        self.store._replicas.evict(time.monotonic() + 1)

    async def reopen(self) -> None:
        self.trace.append(f"{'AB'[self.place]} reopen")
        for name in list(self.heard[self.place]):
            await self.hear(self.place, name)
        self.heard[self.place].clear()
        await self.store.close()
        self.stores[self.place] = self.new()
        await self.store.open()

    async def drop(self, name: str, mark: str) -> None:
        await self.same(f"drop {name} {mark}", lambda store: Space(store, name).drop(mark))

    async def delete(self, name: str, if_revision: int | None = None) -> None:
        await self.same(f"delete {name} {if_revision}", lambda store: store.delete_namespace(name, if_revision))

    async def compact(self, name: str, revision: int = 0) -> None:
        await self.same(f"compact {name} {revision}", lambda store: store.compact(name, revision))

    # Listeners

    async def follow(self, name: str) -> None:
        """Begin to listen, or stop."""
        heard = self.heard[self.place]
        self.trace.append(f"{'AB'[self.place]} {'un' if name in heard else ''}follow {name}")
        if name in heard:
            await self.hear(self.place, name)
            await self.store.unfollow(name)
            del heard[name]
        else:
            heard[name] = Heard()
            position = await self.store.follow(name, heard[name])
            assert heard[name].revision in (None, position.revision)
            heard[name].revision = position.revision
            self.resets[self.place, name] = 0

    async def hear(self, place: int, name: str) -> None:
        """What a listener was told must be what the model told: all of it, in order, each once."""
        heard = self.heard[place].get(name)
        if heard is None:
            return
        self.trace.append(f"{'AB'[place]} hear of {name}")
        position = await self.stores[place].position(name)
        assert told(position) == told(await self.model.position(name))
        for commit in heard.commits:
            assert told(commit) == told(self.history[name][commit.revision])
        assert heard.revision in (None, position.revision)
        if self.resets[place, name]:
            assert heard.resets, "a listener was not told that its history has ended"
        heard.revision = position.revision
        heard.commits.clear()
        heard.resets = self.resets[place, name] = 0

    # All there is

    async def all_agree(self, store: Store) -> None:
        """All that can be read, at every revision, and who wrote it."""
        expected, got = await everything(self.model), await everything(store)
        assert list(got) == list(expected)
        for what in expected:
            assert got[what] == expected[what], what

    async def end(self) -> None:
        self.trace.append("the end")
        for self.place in range(2):
            for name in NAMES:
                await self.hear(self.place, name)
        third = self.new()
        await third.open()
        try:
            for store in (third, *self.stores):
                await self.all_agree(store)
            await self.nothing_is_kept_for_nobody()
            await self.all_agree(third)
        finally:
            await third.close()
        await self.reopen()
        await self.all_agree(self.store)

    async def nothing_is_kept_for_nobody(self) -> None:
        """Of what no checkpoint and no fork needs any more nothing is left in Redis."""
        for name, state in list(self.model.namespaces_by_name.items()):
            for mark in list(state.checkpoints):
                await self.drop(name, mark)
        for name, state in list(self.model.namespaces_by_name.items()):
            if state.parent:
                await self.delete(name)
        for store in self.stores:
            await store.sweep()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compaction, "SPARE", 0)
            for name in list(self.model.namespaces_by_name):
                for self.place in range(2):
                    await self.compact(name)
                    await self.store.retain(name, Retention())
        stores: Sequence[Store] = [self.model, *self.stores]
        for name in list(self.model.namespaces_by_name):
            for one in stores:
                assert (await one.namespace(name)).history_size_bytes == 0
        assert await garbage(self.store, NAMES) == []


class _Model:
    """Listens to the model."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    def publish(self, commits: Sequence[Commit]) -> None:
        self._world.history[self._name].update((commit.revision, commit) for commit in commits)

    def reset(self) -> None:
        for place in range(2):
            if self._name in self._world.heard[place]:
                self._world.resets[place, self._name] += 1


async def answer(store: Store, ask: Answered) -> Any:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await ask(store)
    except StateError as error:
        return error


def told(thing: Any) -> Any:
    """In a form that compares by content, without times and epochs."""
    match thing:
        case StateError():
            metadata = {name: value for name, value in thing.metadata.items() if name != "epoch"}
            return type(thing).__name__, thing.message, metadata
        case Position(revision, floor):
            return revision, floor
        case dict():
            return {name: told(value) for name, value in thing.items()}
        case list():
            return [told(part) for part in thing]
        case _:
            return plain(thing, times=False)


async def entries(store: Store, name: str, prefix: str = "", revision: int = 0, limit: int = 1000) -> Any:
    pages = await Space(store, name).pages(prefix, limit=limit, revision=revision)
    return [entry for page in pages for entry in page.entries], pages[0].revision


async def differences(
    store: Store, name: str, base: Ref, target: Ref = None, prefix: str = "", limit: int = 100
) -> Any:
    pages = await Space(store, name).diff_pages(base, target, prefix, limit=limit)
    return [one for page in pages for one in page.differences], pages[0][1:3]


async def origins(store: Store, name: str, revision: int) -> Any:
    """What those said who wrote what there was."""
    written = sorted({entry[MOD_REVISION] for entry in (await entries(store, name, revision=revision))[0]})
    said = await store.provenance(name, written)
    return [said.get(one, Provenance("", "", "")) for one in written]


async def summary(store: Store, name: str) -> Any:
    info: NamespaceInfo | StateError = await answer(store, lambda store: store.namespace(name))
    return [info, await entries(store, name)]


async def everything(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = {"namespaces": await store.namespaces("", limit=100)}
    for name in NAMES:
        found |= await all_of(store, name)
    return {what: told(value) for what, value in found.items()}


async def all_of(store: Store, name: str) -> dict[str, Any]:
    space = Space(store, name)
    position = await space.position()
    marks = await answer(store, lambda store: store.checkpoints(name, {}, limit=100))
    found: dict[str, Any] = {
        f"position of {name}": position,
        f"info of {name}": await answer(store, lambda _: space.info()),
        f"log of {name}": await answer(store, lambda _: space.log()),
        f"checkpoints of {name}": marks,
    }
    for revision in range(1, position.revision + 2):
        found[f"{name} at {revision}"] = held = await answer(store, partial(entries, name=name, revision=revision))
        if not isinstance(held, StateError):
            found[f"origins of {name} at {revision}"] = await origins(store, name, revision)
    refs = [] if isinstance(marks, StateError) else [mark.name for mark in marks]
    for ref in (1, position.floor, *refs):
        found[f"diff of {name} from {ref}"] = await answer(store, partial(differences, name=name, base=ref))
    return found


async def failure(server: RedisServer, steps: Sequence[str]) -> tuple[str, list[str]] | None:
    """How a program fails, and what it did up to then."""
    world = World(f"{server.url}?prefix=t-{uuid.uuid4().hex}")
    running = asyncio.ensure_future(world.run(steps))
    await asyncio.wait([running])
    error = running.exception()
    return (f"{type(error).__name__}: {error}", world.trace) if error is not None else None


def seeds() -> Sequence[str]:
    asked = os.environ.get("COMITY_SEED")
    if asked:
        return asked.split(",")
    first = time.time_ns() % 1_000_000_000 if SOAK else 0
    return [str(first + number) for number in range(SEEDS)]


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 300)  # seconds that a failure may take to be made small
async def test_stores_over_redis_do_what_a_store_in_memory_does(scanned_server: RedisServer) -> None:
    fails = partial(failure, scanned_server)
    for seed in seeds():
        steps: Sequence[str] = [f"{seed}.{number}" for number in range(STEPS)]
        found = await fails(steps)
        if found is not None:
            steps = await shrunk(steps, fails, time.monotonic() + SHRINK_SECONDS)
            what, trace = await fails(steps) or found
            pytest.fail("\n".join([f"COMITY_SEED={seed}: {what}", *trace]))
