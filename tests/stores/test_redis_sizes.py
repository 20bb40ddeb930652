"""However large what there is, Redis is asked for a little of it at a time, and given a little at a time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Commit, MakeCheckpoint, Put, RequestId, Transaction
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.portions import BYTES, FIELDS, FIRST, Portion
from comity_server.stores.redis.script import Script
from comity_server.stores.url import open_store
from tests.contract.space import Space, fresh_name
from tests.redis_servers import RedisServer

VALUE = 1_000_000
KEYS = 60
MOST = 2 * FIRST * VALUE  # what comes before it is known how long things are


class Heard:
    """A listener."""

    def __init__(self) -> None:
        self.revisions: list[int] = []

    def publish(self, commits: Sequence[Commit]) -> None:
        self.revisions += [commit.revision for commit in commits]

    def reset(self) -> None:
        self.revisions.clear()


def _size(said: Any) -> int:
    if isinstance(said, dict):
        return sum(map(_size, said.values()))
    if isinstance(said, list | tuple):
        return sum(map(_size, said))
    return len(said) if isinstance(said, bytes) else 0


class Sizes(NamedTuple):
    """How many bytes each answer of Redis had, and the arguments of each call of a script."""

    answers: list[int]
    calls: list[int]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> Sizes:
    found = Sizes([], [])
    once, run = Client.once, Client.run

    async def counted_once(self: Client, command: Any) -> Any:
        answer = await once(self, command)
        found.answers.append(_size(answer))
        return answer

    async def counted_run(self: Client, script: Script, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        found.calls.append(_size(list(arguments)))
        return await run(self, script, names, arguments)

    monkeypatch.setattr(Client, "once", counted_once)
    monkeypatch.setattr(Client, "run", counted_run)
    return found


async def test_large_values(redis_url: str, sizes: Sizes) -> None:
    """In the log, and moved into the base, and read from either by another server."""
    name = fresh_name()
    writer = open_store(redis_url, Limits())
    await writer.open()
    try:
        for number in range(KEYS):
            await Space(writer, name).put(f"k{number}", b"v" * VALUE)
        for moved in (False, True):
            if moved:
                await writer.compact(name)
            reader = open_store(redis_url, Limits())
            await reader.open()
            try:
                assert len(await Space(reader, name).keys()) == KEYS
            finally:
                await reader.close()
    finally:
        await writer.close()
    assert VALUE < max(sizes.answers) <= MOST
    assert VALUE < max(sizes.calls) <= MOST


async def test_what_is_written_down_already_is_not_written_again(redis_url: str, sizes: Sizes) -> None:
    """Of checkpoints and remembered outcomes, a compaction writes what has changed."""
    name = fresh_name()
    store = open_store(redis_url, Limits())
    await store.open()
    try:
        space = Space(store, name)
        for number in range(300):
            await space.apply(Put("k", b"v"), request_id=RequestId(f"c{number}", 1))
        await store.compact(name)
        await space.apply(Put("k", b"v"), request_id=RequestId("one more", 1))
        await store.commit(name, [MakeCheckpoint(name="mark")])
        del sizes.calls[:]
        await store.compact(name)
        assert 0 < sum(sizes.calls) < 1_000
        await store.close()
        again = open_store(redis_url, Limits())
        await again.open()
        for client in ("c0", "c299", "one more"):
            put = Transaction(then=(Put("k", b"v"),), request_id=RequestId(client, 1))
            (outcome,) = await again.commit(name, [put])
            assert not isinstance(outcome, Exception)
            assert outcome.revision < 302
        assert (await again.checkpoint(name, "mark")).revision == 301
        await again.close()
    finally:
        await store.close()


def test_portions() -> None:
    """They come to so many bytes, whatever the size of an item, and are smaller where one fails."""
    portion = Portion(FIELDS)
    for size in (10, VALUE, 10 * BYTES, 10):
        for _ in range(10):
            portion.took(portion.count, portion.count * size)
        assert portion.count == max(1, min(FIELDS, BYTES // size))
    portion.failed()
    assert portion.count == FIELDS // 4
    portion.took(0, 0)
    assert portion.count == FIELDS // 4


async def test_a_load_that_fails_says_why() -> None:
    with RedisServer() as redis:
        writer, reader = (open_store(redis.url, Limits()) for _ in range(2))
        await writer.open()
        await reader.open()
        try:
            await Space(writer, "n").put("k")
            with redis.client() as client:
                client.execute_command("ACL", "SETUSER", "default", "-hscan")
                with pytest.raises(StoreUnavailable, match="refuses the server's user"):
                    await reader.get("n", "k")
                client.execute_command("ACL", "SETUSER", "default", "+hscan")
            assert (await reader.get("n", "k")).revision == 1
        finally:
            await writer.close()
            await reader.close()
