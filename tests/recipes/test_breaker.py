"""Once some agents have found a dependency broken, all of them leave it alone for a while."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

import comity
from comity import Client, Unavailable
from comity.recipes import CircuitBreaker, CircuitOpen, CircuitState
from tests import servers
from tests.recipes.cancelling import cancelled_at
from tests.servers import Server
from tests.waiting import until


class Broken(Exception):
    """What a dependency raises that does not work."""


async def broken() -> None:
    raise Broken


async def works() -> str:
    return "works"


async def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Broken):
            await breaker.call(broken)


async def comes_to(breaker: CircuitBreaker, wanted: CircuitState) -> None:
    async def is_so() -> bool:
        return await breaker.state() is wanted

    await until(is_so)


@pytest.fixture
async def breakers(
    server: Server, namespace: str, request: pytest.FixtureRequest
) -> AsyncIterator[list[CircuitBreaker]]:
    """One for each of three agents, with a client of their own. The parameter: for how long they are open."""
    async with AsyncExitStack() as stack:
        made = []
        for number in range(3):
            connected = comity.connect(server.address, namespace=namespace, author=f"agent-{number}")
            client = await stack.enter_async_context(connected)
            made.append(CircuitBreaker(client, "a", 3, reset_after=getattr(request, "param", 1)))
            stack.push_async_callback(made[-1].close)
        yield made


@pytest.mark.parametrize("breakers", [60], indirect=True)
async def test_the_failures_of_all_open_it_for_all(breakers: list[CircuitBreaker]) -> None:
    assert [await each.state() for each in breakers] == [CircuitState.CLOSED] * 3
    await fail(breakers[0])
    await fail(breakers[1])
    assert await breakers[2].call(works) == "works"
    assert await breakers[2].state() is CircuitState.CLOSED
    await fail(breakers[2])
    for each in breakers:
        await comes_to(each, CircuitState.OPEN)
        with pytest.raises(CircuitOpen, match=r"circuit 'a' is open for \d\d\.\d s more") as caught:
            await each.call(works)
        assert 0 < caught.value.retry_after <= 60
        assert 0 < await each.retry_after() <= 60


async def test_one_is_let_through_and_its_success_closes_it(breakers: list[CircuitBreaker]) -> None:
    await breakers[0].trip()
    for each in breakers:
        await comes_to(each, CircuitState.HALF_OPEN)
    calls = 0
    through = asyncio.Event()

    async def probe() -> None:
        nonlocal calls
        calls += 1
        await through.wait()

    calling = [asyncio.create_task(each.call(probe)) for each in breakers for _ in range(5)]
    await until(lambda: calls > 0 and sum(task.done() for task in calling) == len(calling) - 1)
    assert calls == 1
    with pytest.raises(CircuitOpen, match="while a call finds out") as caught:
        await breakers[0].call(works)
    assert caught.value.retry_after == 0
    through.set()
    ended = await asyncio.gather(*calling, return_exceptions=True)
    assert [type(error) for error in ended].count(CircuitOpen) == len(calling) - 1
    for each in breakers:
        await comes_to(each, CircuitState.CLOSED)
        assert await each.call(works) == "works"


async def test_the_failure_of_the_one_opens_it_again(state: Client, breakers: list[CircuitBreaker]) -> None:
    one, other, _ = breakers
    await one.trip()
    lasting = CircuitBreaker(state, "a", 3, reset_after=60)
    await comes_to(lasting, CircuitState.HALF_OPEN)
    await fail(lasting)
    for each in (one, other, lasting):
        await comes_to(each, CircuitState.OPEN)
        with pytest.raises(CircuitOpen):
            await each.call(works)
    await state.delete("breakers/a/state/open")
    await comes_to(other, CircuitState.HALF_OPEN)
    assert await other.call(works) == "works"
    for each in (one, other, lasting):
        await comes_to(each, CircuitState.CLOSED)
    assert [entry async for entry in state.list("breakers/")] == []
    await lasting.close()


async def test_a_success_writes_nothing(state: Client, breakers: list[CircuitBreaker]) -> None:
    await state.put("x", 1)
    for each in breakers:
        assert await each.call(works) == "works"
    assert (await state.namespace_info()).revision == 1


async def test_old_failures_are_forgotten(state: Client) -> None:
    breaker = CircuitBreaker(state, "a", 2, within=1, reset_after=60)
    await fail(breaker)

    async def forgotten() -> bool:
        return not [entry async for entry in state.list("breakers/")]

    await until(forgotten)
    await fail(breaker)
    assert await breaker.state() is CircuitState.CLOSED
    await fail(breaker)
    await comes_to(breaker, CircuitState.OPEN)
    await breaker.close()


async def test_only_what_counts_is_a_failure(state: Client) -> None:
    breaker = CircuitBreaker(state, "a", 1, counts=(Broken, OSError))

    async def raises(error: BaseException) -> None:
        raise error

    for error in (KeyError(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await breaker.call(raises, error)
    assert [entry async for entry in state.list("breakers/")] == []
    with pytest.raises(ConnectionError):
        await breaker.call(raises, ConnectionError())
    await comes_to(breaker, CircuitState.OPEN)
    await breaker.reset()
    await comes_to(breaker, CircuitState.CLOSED)
    await breaker.close()


async def test_a_probe_does_not_close_what_was_tripped_meanwhile(state: Client) -> None:
    breaker, lasting = CircuitBreaker(state, "a", reset_after=1), CircuitBreaker(state, "a", reset_after=60)
    await breaker.trip()
    await comes_to(breaker, CircuitState.HALF_OPEN)
    async with breaker:
        await lasting.trip()
    opened = await state.get("breakers/a/state/open")
    assert opened is not None
    assert opened.value["reset_after"] == 60
    await comes_to(breaker, CircuitState.OPEN)
    assert await state.get("breakers/a/state/probe") is None
    await breaker.close()
    await lasting.close()


async def test_a_cancelled_probe_lets_another_one_through(state: Client) -> None:
    breaker = CircuitBreaker(state, "a", reset_after=1)
    await breaker.trip()
    await comes_to(breaker, CircuitState.HALF_OPEN)
    entered = asyncio.Event()

    async def probe() -> None:
        async with breaker:
            entered.set()
            await asyncio.Event().wait()

    probing = asyncio.create_task(probe())
    await entered.wait()
    probing.cancel()
    await asyncio.wait([probing])

    async def works_again() -> bool:
        with contextlib.suppress(CircuitOpen):
            return await breaker.call(works) == "works"
        return False

    await until(works_again)
    await comes_to(breaker, CircuitState.CLOSED)
    await breaker.close()


async def test_a_probe_that_died_lets_another_one_through(state: Client) -> None:
    breaker = CircuitBreaker(state, "a", reset_after=1)
    await breaker.trip()
    await state.put("breakers/a/state/probe", {"by": "bob"}, ttl=2)

    async def works_again() -> bool:
        with contextlib.suppress(CircuitOpen):
            return await breaker.call(works) == "works"
        return False

    await until(works_again)
    await breaker.close()


async def test_cancellation_leaves_no_probe_wherever_it_comes(state: Client) -> None:
    breaker = CircuitBreaker(state, "a", reset_after=1)
    await breaker.trip()
    await comes_to(breaker, CircuitState.HALF_OPEN)
    wait = 0
    while await cancelled_at(breaker.__aenter__(), wait):
        assert await state.get("breakers/a/state/probe") is None
        await until(lambda: breaker._circuit().last.probe is None)
        wait += 1
    assert wait > 1
    await breaker.close()


async def test_it_decorates(state: Client) -> None:
    breaker = CircuitBreaker(state, "a")

    @breaker
    async def search(query: str, *, limit: int) -> list[str]:
        """Look it up."""
        return [query] * limit

    assert await search("x", limit=2) == ["x", "x"]
    assert (search.__name__, search.__doc__) == ("search", "Look it up.")
    await breaker.trip()
    await comes_to(breaker, CircuitState.OPEN)
    with pytest.raises(CircuitOpen):
        await search("x", limit=2)
    with pytest.raises(TypeError, match="async functions"):
        breaker(len)  # type: ignore[arg-type]
    await breaker.close()


async def test_what_a_restore_brings_back_keeps_nobody_out(state: Client) -> None:
    breaker = CircuitBreaker(state, "a", 1, reset_after=60)
    await fail(breaker)
    await comes_to(breaker, CircuitState.OPEN)
    mark = await state.checkpoint("open")
    await breaker.reset()
    await state.restore(mark)
    await comes_to(breaker, CircuitState.HALF_OPEN)
    assert await breaker.call(works) == "works"
    await comes_to(breaker, CircuitState.CLOSED)
    await breaker.close()


async def test_a_server_that_is_away_is_told_and_found_again(namespace: str) -> None:
    with servers.start() as server:
        async with comity.connect(server.address, namespace=namespace, timeout=5) as client:
            breaker = CircuitBreaker(client, "a")
            assert await breaker.call(works) == "works"
            server.kill()
            await until(lambda: breaker._circuit()._away)
            with pytest.raises(Unavailable):
                await breaker.call(works)
            server.restart()
            assert await breaker.call(works) == "works"
            await until(lambda: not breaker._circuit()._away)
            await breaker.trip()
            await comes_to(breaker, CircuitState.OPEN)
            await breaker.close()


async def test_what_was_done_by_hand_is_seen_at_once(state: Client) -> None:
    breaker = CircuitBreaker(state, "a")
    for _ in range(50):
        await breaker.trip()
        assert await breaker.state() is CircuitState.OPEN
        with pytest.raises(CircuitOpen):
            await breaker.call(works)
        await breaker.reset()
        assert await breaker.state() is CircuitState.CLOSED
        assert await breaker.call(works) == "works"
    await breaker.close()


async def test_the_last_failure_is_seen_at_once(state: Client) -> None:
    breaker = CircuitBreaker(state, "a", 3)
    for _ in range(10):
        await fail(breaker, 3)
        with pytest.raises(CircuitOpen):
            await breaker.call(works)
        await breaker.reset()
    await breaker.close()


async def test_what_was_read_before_is_not_seen_after_what_is_newer(state: Client) -> None:
    breaker, other = CircuitBreaker(state, "a"), CircuitBreaker(state, "a")
    assert await breaker.state() is CircuitState.CLOSED
    circuit = breaker._circuit()
    listing = state.list(circuit.prefix)
    read = await listing.all()  # as a look reads it while the watch is away
    await other.trip()
    await comes_to(breaker, CircuitState.OPEN)
    await circuit.see(read, listing.revision, circuit.resyncs)
    assert await breaker.state() is CircuitState.OPEN
    await breaker.close()
    await other.close()


@pytest.mark.parametrize("half_open", [False, True])
async def test_a_closed_client_does_not_hide_what_a_call_raises(
    server: Server, namespace: str, half_open: bool
) -> None:
    client = comity.connect(server.address, namespace=namespace)
    breaker = CircuitBreaker(client, "a", 1, reset_after=1)
    if half_open:
        await breaker.trip()
        await comes_to(breaker, CircuitState.HALF_OPEN)

    async def close_and_fail() -> None:
        await client.close()
        raise Broken

    with pytest.raises(Broken):
        await breaker.call(close_and_fail)


async def test_two_servers_have_one_breaker(pair: tuple[Client, Client]) -> None:
    one, other = (CircuitBreaker(client, "a", 2, reset_after=2) for client in pair)
    await fail(one)
    await fail(other)
    await comes_to(one, CircuitState.HALF_OPEN)
    assert await one.call(works) == "works"
    await comes_to(one, CircuitState.CLOSED)
    await comes_to(other, CircuitState.CLOSED)
    await one.close()
    await other.close()
