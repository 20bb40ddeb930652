"""Transaction functions that contend for a key take turns, and nobody waits for ever for one."""

import asyncio

import pytest

import comity
from comity import Client, Transaction
from comity.turns import Left, Turns
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until


async def one_more(tx: Transaction) -> None:
    entry = await tx.get("counter")
    tx.put("counter", 1 if entry is None else entry.value + 1)


async def counted(state: Client) -> object:
    entry = await state.get("counter")
    return entry and entry.value


async def test_many_that_contend_for_a_key_hardly_ever_run_again(state: Client) -> None:
    agents, each = 16, 20
    runs = 0

    async def counting(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        await one_more(tx)

    async def agent() -> None:
        for _ in range(each):
            await state.transact(counting)

    await asyncio.gather(*(agent() for _ in range(agents)))
    assert await counted(state) == agents * each
    assert runs <= agents * each + 4 * agents  # those that began before it was known that they contend


async def test_who_has_the_next_turn_sees_what_the_one_before_left(state: Client) -> None:
    """A key that is written, written again with another, and deleted, in turns: each finds it as its history says."""
    seen: list[tuple[int, int] | None] = []

    async def step(tx: Transaction) -> tuple[int, int] | None:
        entry = await tx.get("counter")
        if entry is None:
            tx.put("counter", 1)
        elif entry.value == 1:
            tx.put("counter", 2)
            tx.put("other", entry.mod_revision)
        else:
            tx.delete("counter")
        return None if entry is None else (entry.value, entry.mod_revision)

    async def agent() -> None:
        seen.append(await state.transact(step))

    await asyncio.gather(*(agent() for _ in range(30)))
    left: list[tuple[int, int] | None] = [None]
    async for commit in state.history("counter", newest_first=False):
        (event,) = commit.events
        left.append(None if event.type is comity.EventType.DELETE else (event.entry.value, commit.revision))
    assert sorted(seen, key=str) == sorted(left[:30], key=str)


async def test_two_clients_and_a_writer_of_its_own_lose_nothing(server: Server, namespace: str) -> None:
    async with (
        comity.connect(server.address, namespace=namespace) as one,
        comity.connect(server.address, namespace=namespace) as two,
    ):

        async def agent(client: Client) -> None:
            for _ in range(10):
                await client.transact(one_more)

        async def writer() -> None:
            for _ in range(30):
                await one.transact(then=[comity.Increment("counter", 1)])

        await asyncio.gather(writer(), *(agent(client) for client in (one, two) for _ in range(4)))
        assert await counted(one) == 110


async def test_a_function_that_waits_for_another_of_the_same_key_gets_on(state: Client) -> None:
    """The inner ones make the outer lose, so that it has the turn that they wait for when it runs again."""
    inner = 3

    async def outer(tx: Transaction) -> None:
        nonlocal inner
        await one_more(tx)
        if inner:
            inner -= 1
            await state.transact(one_more)

    await state.transact(outer, timeout=30)
    assert await counted(state) == 4


async def test_a_turn_ends_with_what_fails_and_with_what_is_cancelled(state: Client) -> None:
    begun = asyncio.Event()

    async def stuck(tx: Transaction) -> None:
        await one_more(tx)
        if begun.is_set():
            await asyncio.Event().wait()
        begun.set()
        await state.transact(then=[comity.Increment("counter", 1)])  # so that it loses, and has a turn next time

    async def failing(tx: Transaction) -> None:
        await one_more(tx)
        raise LookupError

    holder = asyncio.create_task(state.transact(stuck, timeout=60))
    await begun.wait()
    others = [asyncio.create_task(state.transact(one_more)) for _ in range(4)]
    await asyncio.wait(others)  # each goes on without a turn after a while
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    with pytest.raises(LookupError):
        await state.transact(failing)
    await state.transact(one_more)
    assert await counted(state) == 6


async def test_a_waiter_that_is_cancelled_as_its_turn_comes_leaves_it_to_the_next() -> None:
    turns = Turns()
    first, second, third = (turns.contender("n", 60) for _ in range(3))
    assert await first.lost("k") is None
    waiting = [asyncio.create_task(contender.begin("k")) for contender in (second, third)]
    queue = turns._queues[asyncio.get_running_loop()]["n", "k"]
    await until(lambda: len(queue.waiting) == 2)
    first.end(None)
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    second.end(None)  # as `run` does in the end
    assert await asyncio.wait_for(waiting[1], 5) is None
    assert third.key == "k"
    third.end(None)
    assert not turns._queues[asyncio.get_running_loop()]


async def test_who_comes_after_what_is_left_was_asked_for_is_not_told() -> None:
    turns = Turns()
    first, second, third = (turns.contender("n", 60) for _ in range(3))
    assert await first.lost("k") is None
    early = asyncio.create_task(second.begin("k"))
    queue = turns._queues[asyncio.get_running_loop()]["n", "k"]
    await until(lambda: len(queue.waiting) == 1)
    assert first.wanted()  # what it leaves is read back, for the one who waits
    late = asyncio.create_task(third.begin("k"))
    await until(lambda: len(queue.waiting) == 2)
    early.cancel()
    await asyncio.wait([early])
    first.end(Left(7, None))
    assert await asyncio.wait_for(late, 5) is None
    assert third.key == "k"


@pytest.mark.parametrize("written", ["counter", "other"])
async def test_who_comes_while_a_commit_is_answered_reads_what_was_acknowledged_before(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """The holder of the turn has committed, somebody else has written the key since, and only then a reader comes."""
    monkeypatch.setattr("comity.turns.WAIT_SECONDS", 60.0)
    async with (
        Proxy(server.address) as proxy,
        comity.connect(proxy.address, namespace=namespace) as state,
        comity.connect(server.address, namespace=namespace) as other,
    ):
        await state.put("counter", 1)
        runs = 0

        async def holding(tx: Transaction) -> None:
            nonlocal runs
            runs += 1
            await tx.get("counter")
            if runs == 1:
                await other.put("counter", 2)  # so that it loses, and has a turn next time
            else:
                proxy.stall()
            tx.put(written, 3)

        async def reading(tx: Transaction) -> tuple[object, list[object]]:
            entry = await tx.get("counter")
            return entry and entry.value, [entry.value for entry in await tx.list("counter")]

        async def is_committed() -> bool:
            entry = await other.get(written)
            return entry is not None and entry.value == 3

        holder = asyncio.create_task(state.transact(holding, timeout=60))
        await until(is_committed)
        await other.put("counter", 4)
        reader = asyncio.create_task(state.transact(reading, timeout=60))
        queue = state._calls.turns._queues[asyncio.get_running_loop()][namespace, "counter"]
        await until(lambda: bool(queue.waiting))
        proxy.resume()
        assert await reader == (4, [4])
        await holder
        assert runs == 2


async def test_who_loses_at_one_key_and_another_waits_ever_longer(
    state: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that was free is no wait: else it would go round as fast as it can."""
    monkeypatch.setattr("random.uniform", lambda _, most: most)
    runs = 0

    async def lose(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        await tx.get("even")
        await tx.get("odd")
        await state.put("odd" if runs % 2 else "even", runs)
        tx.put("never", runs)

    with pytest.raises(comity.Conflict):
        await state.transact(lose, timeout=1)
    assert runs <= 10  # with 5, 10, 20 ms and so on in between


async def test_nobody_waits_for_a_turn_beyond_his_deadline(state: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.turns.WAIT_SECONDS", 60.0)
    holder = state._calls.turns.contender(state.namespace, 60)
    assert await holder.lost("counter") is None

    async with asyncio.timeout(30):
        await state.transact(one_more, timeout=0.2)  # it waits when it begins
        runs = 0

        async def lose(tx: Transaction) -> None:
            nonlocal runs
            runs += 1
            await tx.get("other")
            await tx.get("counter")
            await state.transact(then=[comity.Increment("counter", 1)])
            tx.put("never", 1)

        with pytest.raises(comity.Conflict):
            await state.transact(lose, timeout=0.2)  # it waits when it has lost
        assert runs <= 2
    holder.end(None)


async def test_who_reads_only_takes_no_turn(state: Client) -> None:
    await state.put("counter", 1)

    async def read(tx: Transaction) -> object:
        entry = await tx.get("counter")
        return entry and entry.value

    assert await state.transact(read) == 1
    assert not state._calls.turns._queues[asyncio.get_running_loop()]


def test_loops_have_queues_of_their_own(server: Server, namespace: str) -> None:
    client = comity.connect(server.address, namespace=namespace)

    async def some() -> None:
        await asyncio.gather(*(client.transact(one_more) for _ in range(8)))

    for _ in range(2):
        asyncio.run(some())

    async def look() -> object:
        async with client:
            return await counted(client)

    assert asyncio.run(look()) == 16
