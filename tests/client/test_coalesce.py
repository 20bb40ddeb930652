"""Calls that are in flight together share messages, and answer what they would answer by themselves."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import comity
from comity import Client, Delete, Get, Increment, Key, List, Prefix, Put, RequestId
from comity.coalesce import LANES
from comity.stream import OPERATIONS, UNANSWERED
from tests.client.streams import Watched, alone, lanes
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until

Case = Callable[[Client], Awaitable[Any]]


# The same as by itself


def shown(found: object, client: Client) -> str:
    """All of it, but for when it was and where."""
    return re.sub(r"datetime\.datetime\([^)]*\)", "then", repr(found)).replace(client.namespace, "here")


async def outcome(case: Case, client: Client) -> object:
    try:
        return await case(client)
    except comity.ComityError as error:
        said = (error.code, error.reason, sorted(error.metadata.items()), sorted(error.violations), error.retry_delay)
        return type(error), error.message, said
    except Exception as error:  # noqa: BLE001 - compared
        return type(error), str(error)


async def prepare(client: Client) -> None:
    await client.put("a", {"n": 1})
    await client.put("a", {"n": 2}, content_type="application/vnd.a+json")
    await client.put("bytes", b"\x00\xff")
    await client.put("text", "hello", content_type="text/plain")
    await client.put("n", 41)
    for number in range(5):
        await client.put(f"p/{number}", number)
    await client.delete("p/0")


async def spend(tx: comity.Transaction) -> Any:
    entry = await tx.get("a")
    assert entry is not None
    listed = [found.key for found in await tx.list("p/")]
    tx.put("a", entry.value["n"] + 1)
    tx.increment("n")
    tx.delete(prefix="p/")
    return listed


async def undecided(tx: comity.Transaction) -> None:
    tx.put("a", 0)
    raise LookupError


CASES: dict[str, Case] = {
    "get": lambda c: c.get("a"),
    "get bytes": lambda c: c.get("bytes"),
    "get absent": lambda c: c.get("absent"),
    "get at": lambda c: c.get("a", revision=1),
    "get of the future": lambda c: c.get("a", revision=1000),
    "get below": lambda c: c.get("a", revision=-1),
    "get nothing": lambda c: c.get(""),
    "get a long key": lambda c: c.get("k" * 1025),
    "get NUL": lambda c: c.get("k\0"),
    "get no str": lambda c: c.get(5),  # type: ignore[arg-type]
    "get no Unicode": lambda c: c.get("\ud800"),
    "get at no number": lambda c: c.get("a", revision="1"),  # type: ignore[arg-type]
    "put": lambda c: c.put("b", {"x": [1, None, "é"]}),
    "put over": lambda c: c.put("a", 3, return_previous=True),
    "put over nothing": lambda c: c.put("b", 3, return_previous=True),
    "put for a reason that is too long": lambda c: c.put("b", 1, message="why" * 100_000),
    "put text": lambda c: c.put("b", "text", content_type="text/plain"),
    "put empty": lambda c: c.put("b", b""),
    "put at version": lambda c: c.put("a", 3, if_version=2),
    "put at another version": lambda c: c.put("a", 3, if_version=1),
    "put at a revision": lambda c: c.put("a", 3, if_revision=2),
    "put at another revision": lambda c: c.put("a", 3, if_revision=1),
    "put at both": lambda c: c.put("a", 3, if_version=2, if_revision=2),
    "put at one of both": lambda c: c.put("a", 3, if_version=2, if_revision=1),
    "put at version 0": lambda c: c.put("b", 3, if_version=0),
    "put at version 0 of a key": lambda c: c.put("a", 3, if_version=0),
    "put at version False": lambda c: c.put("a", 3, if_version=False),
    "put at revision 0": lambda c: c.put("b", 3, if_revision=0),
    "put at revision 0 of a key": lambda c: c.put("a", 3, if_revision=0),
    "put at both 0": lambda c: c.put("b", 3, if_version=0, if_revision=0),
    "put at version 0 and a revision": lambda c: c.put("a", 3, if_version=0, if_revision=2),
    "put at a version and revision 0": lambda c: c.put("a", 3, if_version=2, if_revision=0),
    "put below version 0": lambda c: c.put("a", 3, if_version=-1),
    "put below revision 0": lambda c: c.put("a", 3, if_revision=-1),
    "put at no version": lambda c: c.put("a", 3, if_version="2"),  # type: ignore[arg-type]
    "put nothing": lambda c: c.put("", 3),
    "put a long key": lambda c: c.put("k" * 1025, 3),
    "put no str": lambda c: c.put(None, 3),  # type: ignore[arg-type]
    "put no type": lambda c: c.put("b", b"", content_type=5),  # type: ignore[arg-type]
    "put a bad type": lambda c: c.put("b", b"", content_type="a\nb"),
    "put too much": lambda c: c.put("b", bytes(1024 * 1024 + 1)),
    "put much": lambda c: c.put("b", bytes(1024 * 1024)),
    "put no JSON": lambda c: c.put("b", object()),
    "put NaN": lambda c: c.put("b", float("nan")),
    "put with a message": lambda c: c.put("b", 1, message="why"),
    "put with a long message": lambda c: c.put("b", 1, message="m" * 5000),
    "put with no message": lambda c: c.put("b", 1, message=None),  # type: ignore[arg-type]
    "put with much that is wrong": lambda c: c.put("", 1, if_version=-1, content_type="a\nb"),
    "put with an id": lambda c: c.put("b", 1, request_id=RequestId("me", 1)),
    "put with no id": lambda c: c.put("b", 1, request_id=5),  # type: ignore[arg-type]
    "put in no time": lambda c: c.put("b", 1, timeout=0),
    "delete": lambda c: c.delete("a"),
    "delete absent": lambda c: c.delete("absent"),
    "delete for its entry": lambda c: c.delete("a", return_previous=True),
    "delete absent for its entry": lambda c: c.delete("absent", return_previous=True),
    "delete at version": lambda c: c.delete("a", if_version=2),
    "delete at another version": lambda c: c.delete("a", if_version=1),
    "delete at version 0": lambda c: c.delete("absent", if_version=0),
    "delete at version 0 of a key": lambda c: c.delete("a", if_version=0),
    "delete at revision 0 of a key": lambda c: c.delete("a", if_revision=0),
    "delete at another revision": lambda c: c.delete("a", if_revision=1),
    "delete below version 0": lambda c: c.delete("a", if_version=-1),
    "delete nothing": lambda c: c.delete(""),
    "delete neither": lambda c: c.delete(),
    "delete both": lambda c: c.delete("a", prefix="p/"),
    "delete no str": lambda c: c.delete(5),  # type: ignore[arg-type]
    "delete a prefix": lambda c: c.delete(prefix="p/", return_previous=True),
    "delete an unchanged prefix": lambda c: c.delete(prefix="p/", if_revision=11),
    "delete a changed prefix": lambda c: c.delete(prefix="p/", if_revision=3),
    "transact": lambda c: c.transact(
        conditions=[Key("a").version == 2, Prefix("p/").unchanged_since(11)],
        then=[
            Get("a"),
            List("p/", limit=2, keys_only=True),
            Put("a", 3, return_previous=True),
            Increment("n", 1),
            Delete(prefix="p/", return_previous=True),
            Delete("absent"),
        ],
        message="why",
    ),
    "transact nothing": lambda c: c.transact(),
    "transact otherwise": lambda c: c.transact(
        conditions=[Key("a").version == 1, Key("absent").exists(), Prefix("p/").unchanged_since(2)],
        then=[Put("a", 3)],
        otherwise=[Get("a"), Get("absent")],
    ),
    "transact for a count of text": lambda c: c.transact(then=[Increment("text")]),
    "transact twice the same": lambda c: c.transact(then=[Put("a", 1), Put("a", 2)]),
    "transact before the beginning": lambda c: c.transact(conditions=[Prefix("").unchanged_since(1000)]),
    "transact no operation": lambda c: c.transact(then=["put"]),  # type: ignore[list-item]
    "transact a bad key": lambda c: c.transact(then=[Put("a", 1), Put("", 2)], otherwise=[Get("")]),
    "transact too many": lambda c: c.transact(then=[Put(f"{n}", n) for n in range(1001)]),
    "transact much": lambda c: c.transact(then=[Put(f"{n}", bytes(500_000)) for n in range(3)]),
    "transact with an id": lambda c: c.transact(then=[Increment("n")], request_id=RequestId("me", 7)),
    "a function": lambda c: c.transact(spend),
    "a function that raises": lambda c: c.transact(undecided),
    "increment": lambda c: c.increment("n", -3),
    "increment text": lambda c: c.increment("text"),
    "a counter": lambda c: c.transact(lambda tx: tx.increment("n", 2)),
    "another author": lambda c: c.with_options(author="a" * 300).put("b", 1),
    "another namespace": lambda c: c.with_options(namespace="NO").put("b", 1),
    "a get in another namespace": lambda c: c.with_options(namespace="NO").get("b"),
    "no namespace": lambda c: c.with_options(namespace=5).get("b"),  # type: ignore[arg-type]
}


@pytest.fixture
async def two(server: Server) -> AsyncIterator[tuple[Client, Client]]:
    """Clients in namespaces that are alike: one whose calls share messages, and one whose go by themselves."""
    name = f"test-{uuid.uuid4().hex}"
    async with (
        comity.connect(server.address, namespace=f"{name}-1", author="ann") as together,
        comity.connect(server.address, namespace=f"{name}-2", author="ann") as single,
    ):
        alone(single)
        yield together, single


@pytest.mark.parametrize("name", CASES)
async def test_a_call_is_answered_as_by_itself(two: tuple[Client, Client], name: str) -> None:
    ends = []
    for client in two:
        await prepare(client)
        end = await outcome(CASES[name], client)
        found = shown((end, await client.list().all(), await client.history().all()), client)
        ends.append(found.replace("options.message", "message"))  # the field's name in the text of a refusal
    assert ends[0] == ends[1]


async def test_most_calls_go_together(state: Client) -> None:
    watched = Watched(state)
    await state.put("a", 1)
    await state.get("a")
    await state.delete("a")
    await state.put("a", 1, if_version=0)
    await state.transact(then=[Increment("a")])
    await state.transact(lambda tx: tx.increment("a"))
    await state.transact(spend_nothing)
    assert watched.operations == 7


async def spend_nothing(tx: comity.Transaction) -> None:
    await tx.get("a")


@pytest.mark.parametrize(
    "by_itself",
    [
        lambda c: c.put("a", 1, if_version=0, if_revision=0),
        lambda c: c.put("a", 1, request_id=RequestId("me", 1)),
        lambda c: c.put("a", bytes(500_000)),
        lambda c: c.delete("a", if_version=0),
        lambda c: c.delete("a", if_revision=0),
        lambda c: c.delete(prefix="a"),
        lambda c: c.transact(then=[Put(f"{n}", bytes(100_000)) for n in range(3)]),
    ],
)
async def test_what_a_pipeline_cannot_say_or_should_not_carry_goes_by_itself(state: Client, by_itself: Case) -> None:
    watched = Watched(state)
    await by_itself(state)
    assert watched.operations == 0


async def test_the_trace_of_each_write_is_kept(server: Server, namespace: str) -> None:
    traces = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 9)]
    following = iter(traces)
    async with comity.connect(server.address, namespace=namespace, trace_parent=lambda: next(following)) as client:
        await asyncio.gather(*(client.put(f"{number}", number) for number in range(8)))
        commits = await client.history(newest_first=False).all()
    assert sorted(commit.trace_parent for commit in commits) == traces


# Together


async def test_calls_of_many_tasks_share_messages(state: Client) -> None:
    await state.put("k", 0)
    watched = Watched(state)
    lane_of = state.with_options(author="bob")  # of a lane of its own, which has no stream yet

    async def work(number: int) -> None:
        for turn in range(5):
            await lane_of.put(f"{number}", turn)
            assert value(await lane_of.get(f"{number}")) == turn

    await asyncio.gather(*(work(number) for number in range(64)))
    assert watched.streams == 1
    assert watched.operations == 640
    assert len(watched.messages) < 160


def value(entry: comity.Entry | None) -> object:
    return None if entry is None else entry.value


async def test_what_is_asked_for_at_once_is_one_message(state: Client) -> None:
    watched = Watched(state)
    await asyncio.gather(*(state.put(f"{number}", number) for number in range(100)))
    assert [len(message.operations) for message in watched.messages] == [100]
    first = watched.messages[0]
    assert (first.namespace, first.author) == (state.namespace, "ann")
    ids = [operation.id for operation in first.operations]
    assert first.awaited == min(ids)
    assert len(set(ids)) == 100
    assert 9 < first.timeout.ToNanoseconds() / 1e9 <= 10


async def test_a_call_by_itself_is_sent_at_once(state: Client) -> None:
    watched = Watched(state)
    await state.put("k", 1)
    task = asyncio.create_task(state.put("k", 2))
    turns = 0
    while len(watched.messages) < 2:
        await asyncio.sleep(0)
        turns += 1
    assert turns <= 3  # turns of the event loop: no timer was waited for
    assert (await task).version == 2


async def test_what_comes_while_a_message_is_written_makes_up_the_next_one(state: Client) -> None:
    watched = Watched(state)
    await state.put("k", 1)
    watched.hold()
    tasks = [asyncio.create_task(state.put("first", 0))]
    await until(lambda: len(watched.messages) == 2)
    for number in range(50):
        tasks.append(asyncio.create_task(state.put(f"{number}", number)))
        await asyncio.sleep(0)
    assert len(watched.messages) == 2
    watched.release()
    await asyncio.gather(*tasks)
    assert [len(message.operations) for message in watched.messages] == [1, 1, 50]


async def test_a_message_has_no_more_operations_and_bytes_than_it_may(state: Client) -> None:
    watched = Watched(state)
    await asyncio.gather(*(state.get(f"{number}") for number in range(OPERATIONS + 500)))
    await asyncio.gather(*(state.put(f"{number}", bytes(200_000)) for number in range(10)))
    assert [len(message.operations) for message in watched.messages][:2] == [OPERATIONS, 500]
    assert all(message.ByteSize() < 1024 * 1024 for message in watched.messages)
    assert watched.operations == OPERATIONS + 510


async def test_the_texts_of_writes_count_for_the_size_of_a_message(state: Client) -> None:
    watched = Watched(state)
    writes = [state.put(f"{number}".rjust(1000, "k"), 0, message="é" * 2048) for number in range(1000)]
    await asyncio.gather(*writes)
    assert watched.operations == 1000
    assert all(message.ByteSize() < 1024 * 1024 for message in watched.messages)


async def test_who_asks_for_more_than_is_answered_waits(server: Server, namespace: str) -> None:
    async with (
        Proxy(server.address) as proxy,
        comity.connect(proxy.address, namespace=namespace, timeout=60) as client,
    ):
        watched = Watched(client)
        await client.put("k", 1)
        proxy.stall()
        tasks = [asyncio.create_task(client.get("k")) for _ in range(UNANSWERED + 1500)]
        await until(lambda: watched.operations >= UNANSWERED)
        for _ in range(20):
            await asyncio.sleep(0)
        assert watched.operations == 1 + UNANSWERED
        with pytest.raises(comity.DeadlineExceeded):
            await client.get("k", timeout=0.05)
        proxy.resume()
        assert {value(entry) for entry in await asyncio.gather(*tasks)} == {1}


async def test_each_namespace_and_author_has_a_lane_up_to_a_bound(state: Client) -> None:
    watched = Watched(state)
    clients = [state.with_options(author=f"author-{number}") for number in range(LANES + 4)]
    await asyncio.gather(*(client.put("k", client.author) for client in clients))
    assert watched.streams == LANES
    commits = await state.history().all()
    assert {commit.author for commit in commits} == {client.author for client in clients}


async def test_event_loops_at_the_same_time_have_streams_of_their_own(server: Server, namespace: str) -> None:
    client = comity.connect(server.address, namespace=namespace)

    async def work() -> int:
        await asyncio.gather(*(client.transact(then=[Increment("n")]) for _ in range(100)))
        return lanes(client)._lanes.__len__()

    assert await asyncio.gather(*(asyncio.to_thread(asyncio.run, work()) for _ in range(4))) == [1] * 4
    assert value(await client.get("n")) == 400
    await client.close()


# The end of a call


async def test_a_cancelled_call_that_was_not_sent_is_not_sent(state: Client) -> None:
    watched = Watched(state)
    await state.put("k", 1)
    watched.hold()
    first = asyncio.create_task(state.get("k"))
    await until(lambda: len(watched.messages) == 2)
    cancelled = asyncio.create_task(state.put("k", 2))
    kept = asyncio.create_task(state.put("other", 3))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    watched.release()
    await asyncio.gather(first, kept)
    assert [operation.key for message in watched.messages[2:] for operation in message.operations] == ["other"]
    assert value(await state.get("k")) == 1


async def test_a_cancelled_call_leaves_the_others(server: Server, namespace: str) -> None:
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as client:
        await client.put("k", 1)
        proxy.stall()
        tasks = [asyncio.create_task(client.transact(then=[Increment("n")])) for _ in range(10)]
        await proxy.held_back()
        for task in tasks[::2]:
            task.cancel()
        proxy.resume()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(end, asyncio.CancelledError) for end in ends] == [True, False] * 5
        assert value(await client.get("n")) == 10  # what was sent is done


async def test_each_call_has_its_own_deadline(server: Server, namespace: str) -> None:
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as client:
        await client.put("k", 1)
        proxy.stall()
        long = asyncio.create_task(client.get("k", timeout=60))
        await proxy.held_back()
        for timeout in (0.05, 0.01, 0.02):
            with pytest.raises(comity.DeadlineExceeded, match="no answer from"):
                await client.get("k", timeout=timeout)
        assert not long.done()
        proxy.resume()
        assert value(await long) == 1


async def test_close_ends_what_waits_for_an_answer(server: Server, namespace: str) -> None:
    async with Proxy(server.address) as proxy:
        client = comity.connect(proxy.address, namespace=namespace)
        await client.put("k", 1)
        proxy.stall()
        waiting = [asyncio.create_task(client.put("k", 2)) for _ in range(3)]
        await proxy.held_back()
        await client.close()
        for task in waiting:
            with pytest.raises(RuntimeError, match="the client is closed"):
                await task
        with pytest.raises(RuntimeError, match="the client is closed"):
            await client.put("k", 3)


async def test_a_stream_that_is_not_used_ends(state: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.stream.IDLE_SECONDS", 0.0)
    watched = Watched(state)
    await state.put("k", 1)
    lane = next(iter(lanes(state)._lanes.values()))
    await until(lambda: lane._stream is None)
    assert value(await state.get("k")) == 1
    assert watched.streams == 2
