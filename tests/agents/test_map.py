"""Maps: every input is done once, whoever dies meanwhile."""

import asyncio
import itertools
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing

import pytest

import comity
from comity.agents import Directory, ItemFailed, MapDiffers, MapError, RestartLimitExceeded, Supervisor
from comity.agents.children import Mode
from comity.agents.feeding import Feeding
from comity.recipes import Queue
from tests.agents import members
from tests.agents.conftest import TTL
from tests.agents.program import Program
from tests.servers import Server
from tests.waiting import until

MODES: list[Mode] = ["task", "process"]


@pytest.mark.parametrize("mode", MODES)
async def test_outcomes_as_they_come(state: comity.Client, mode: Mode) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        outcomes = [each async for each in supervisor.map(members.square, range(20), concurrency=3, mode=mode)]
        assert sorted(each.index for each in outcomes) == list(range(20))
        assert all(each.value == each.index**2 and each.error is None and each.attempts == 1 for each in outcomes)
        assert {each.result() for each in outcomes} == {number * number for number in range(20)}
        assert supervisor.children() == []
    assert [entry.key async for entry in state.list()] == []


async def test_gather(state: comity.Client) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        assert await supervisor.gather(members.square, numbers()) == [0, 1, 4, 9, 16]
        assert await supervisor.gather(members.square, []) == []
        with pytest.raises(MapError, match="2 of 4 inputs have failed, the first by ValueError: 1 is odd") as failed:
            await supervisor.gather(members.fail_on_odd, range(4), retries=1)
        assert [(each.index, each.value, each.attempts) for each in failed.value.results] == [
            (0, 0, 1),
            (1, None, 2),
            (2, 2, 1),
            (3, None, 2),
        ]
        zero, one, two, three = await supervisor.gather(
            members.fail_on_odd, range(4), retries=0, return_exceptions=True
        )
        assert (zero, two) == (0, 2)
        assert isinstance(one, ItemFailed)
        assert (str(three), three.reason) == ("3 is odd", "ValueError")


async def test_what_comity_raises_in_the_function_is_a_failure_of_its_input(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL, max_restarts=0) as supervisor:
        outcomes = await supervisor.gather(
            members.read, ["no such", "lost", "cancelled"], retries=1, return_exceptions=True
        )
        assert [each.reason for each in outcomes] == ["NotFound", "LeaseLost", "CancelledError"]


async def test_what_others_have_put_among_the_inputs_is_passed_over(state: comity.Client) -> None:
    queue = Queue(state, "map:squares")
    for junk in (b"{", b'"x"', b'{"index": "x", "input": 1}', b'{"index": 1}'):
        await queue.put(junk, 1, content_type="application/json")
    async with Supervisor(state, "boss", ttl=TTL, max_restarts=0) as supervisor:
        assert await supervisor.gather(members.square, range(3), id="squares", retries=1, concurrency=1) == [0, 1, 4]
        assert (await queue.size()).dead == 4


async def test_endless_inputs_are_put_as_outcomes_are_read(state: comity.Client) -> None:
    given = 0

    def endless() -> Iterator[int]:
        nonlocal given
        while True:
            given += 1
            yield given

    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        outcomes = supervisor.map(members.square, endless(), concurrency=2, id="squares")
        async with aclosing(outcomes):
            for read in range(1, 50):
                await anext(outcomes)
                assert given <= read + 21  # one is asked for before it may be put

            async def all_done() -> bool:
                return len(await state.list("maps/squares/results/").all()) == 49 + 20

            await until(all_done)
        assert given == 49 + 21


async def test_an_input_with_which_agents_die_is_given_up(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=60, max_restarts=0) as supervisor:
        outcomes = await supervisor.gather(
            members.die_on_3, range(6), retries=1, concurrency=2, mode="process", return_exceptions=True
        )
    assert [each for each in outcomes if not isinstance(each, ItemFailed)] == [0, 1, 2, 4, 5]
    (dead,) = [each for each in outcomes if isinstance(each, ItemFailed)]
    assert dead.reason == "DEAD"


async def test_what_a_killed_agent_had_is_done_by_another(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=60) as supervisor:
        mapping = asyncio.create_task(supervisor.gather(members.slow_square, range(4), concurrency=2, mode="process"))

        async def begun() -> list[comity.Entry]:
            return await state.list("begun/").all()

        async def both() -> bool:
            return len(await begun()) == 2

        await until(both)
        victim, _ = await begun()
        os.kill(victim.value, signal.SIGKILL)

        async def again() -> bool:
            number = victim.key.split("/")[1]
            return len(await state.list(f"begun/{number}/").all()) == 2

        await until(again)
        await state.put("go", True)
        assert await mapping == [0, 1, 4, 9]


async def test_a_killed_supervisors_map_is_resumed(state: comity.Client, server: Server) -> None:
    program = Program(members.run_map, server.address, state.namespace, "boss")
    try:

        async def begun() -> bool:
            return len(await state.list("begun/").all()) == 2

        await until(begun)
        program.kill()
        await state.put("go", True)

        async def done() -> bool:
            return len(await state.list("maps/squares/results/").all()) == 8

        async with Supervisor(state, "boss", ttl=TTL, wait=30) as supervisor:
            squares = await supervisor.gather(
                members.slow_square, range(8), id="squares", concurrency=2, mode="process"
            )
            assert squares == [number * number for number in range(8)]
            assert await done()
            again = await supervisor.gather(members.slow_square, range(8), id="squares")
            assert again == squares
            await supervisor.forget_map("squares")
        left = [entry.key async for entry in state.list() if not entry.key.startswith(("begun/", "go"))]
        assert left == []
        await until(lambda: nobody(state))
    finally:
        program.kill()


async def nobody(state: comity.Client) -> bool:
    return await Directory(state).list() == []


async def test_agents_that_cannot_work_end_the_map(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=60) as supervisor:
        with pytest.raises(RestartLimitExceeded, match=r"cannot be started.*exited with 1 before it could run"):
            await supervisor.gather(members.Unloadable(), [1, 2], concurrency=1, mode="process", retries=0)
        assert supervisor.children() == []


async def test_leaving_early_ends_the_agents(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=60) as supervisor:
        async with aclosing(supervisor.map(members.square, range(50))) as outcomes:
            async for _ in outcomes:
                break
        assert supervisor.children() == []
        assert await nobody(state)


async def test_arguments_that_cannot_be(state: comity.Client) -> None:
    with pytest.raises(RuntimeError, match="not begun"):
        Supervisor(state, "boss").map(members.square, [])
    async with Supervisor(state, "boss", ttl=60) as supervisor:
        for wrong in ({"concurrency": 0}, {"retries": -1}, {"id": "a/b"}, {"id": "a" * 51}, {"mode": "thread"}):
            with pytest.raises(ValueError, match=r"."):
                supervisor.map(members.square, [], **wrong)
        with pytest.raises(TypeError):
            await supervisor.gather(members.square, [object()])
        with pytest.raises(TypeError):
            await supervisor.gather(members.square, 7)  # type: ignore[arg-type]
        with pytest.raises(comity.InvalidArgument):
            await supervisor.gather(members.square, ["x" * 2_000_000])
        with pytest.raises(MapError, match="InvalidArgument"):
            await supervisor.gather(members.enlarge, [1], retries=0)
        with pytest.raises(MapError, match="TypeError"):
            await supervisor.gather(members.stay_with, [1], retries=0)
        assert supervisor.children() == []


async def test_a_text_that_cannot_be_stored(state: comity.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "comity.agents")  # the log has the text as it is, which pytest-xdist cannot send
    async with Supervisor(state, "boss", ttl=60) as supervisor:
        found = await supervisor.gather(members.fail_unreadably, range(3), return_exceptions=True)
        assert (found[0], str(found[1]), found[2]) == (0, "no ?.txt", 2)


@pytest.mark.parametrize(
    ("others", "index"),
    [([1, 2, 4], 2), ([7], 0), ([1, 2], 2), ([], 0), ([1, 2, 3, 4], 3), (itertools.count(1), 3)],
    ids=["another", "the first", "fewer", "none", "more", "endless"],
)
async def test_other_inputs_under_an_id_are_refused(state: comity.Client, others: Iterable[int], index: int) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        assert await supervisor.gather(members.square, [1, 2, 3], id="squares") == [1, 4, 9]
        given = []

        async def read() -> None:
            async for each in supervisor.map(members.square, others, id="squares"):
                given.append(each)  # noqa: PERF401 - those before it raises, too

        with pytest.raises(MapDiffers, match=f"other inputs: input {index} is ") as differs:
            await read()
        assert differs.value.metadata == {"id": "squares", "index": str(index)}
        assert all(each.index < index for each in given)
        assert supervisor.children() == []
        assert await supervisor.gather(members.square, [1, 2, 3], id="squares") == [1, 4, 9]


async def test_other_inputs_than_those_of_a_map_that_was_left_are_refused(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        async with aclosing(supervisor.map(members.square, range(5), id="squares")) as outcomes:
            await anext(outcomes)
            await until(lambda: has_fed(state, 5))
        for others in ([0, 1], [0, 1, 7, 3, 4]):
            with pytest.raises(MapDiffers, match="input 2 is "):
                await supervisor.gather(members.square, others, id="squares")
        assert await supervisor.gather(members.square, range(5), id="squares") == [0, 1, 4, 9, 16]
        record = {"b": 1, "a": {"d": 1, "c": [2]}}
        assert await supervisor.gather(members.same, [record], id="same") == [record]
        assert await supervisor.gather(members.same, [{"a": {"c": (2,), "d": 1}, "b": 1}], id="same") == [record]


async def has_fed(state: comity.Client, count: int) -> bool:
    size = await state.get("maps/squares/size")
    return size is not None and bool(size.value["fed"] >= count)


async def test_two_supervisors_feed_one_map_once(state: comity.Client) -> None:
    inputs = list(range(30))
    async with state.lease(TTL) as first, state.lease(TTL) as second:
        queue = Queue(state, "map:squares")
        await asyncio.gather(*(Feeding(state, "squares", queue, lease).run(inputs, 100) for lease in (first, second)))
        assert (await queue.size()).free == 30
        assert await has_fed(state, 30)
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        assert await supervisor.gather(members.square, inputs, id="squares") == [number**2 for number in inputs]


async def test_two_supervisors_map_at_once(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as boss, Supervisor(state, "other", ttl=TTL) as other:
        inputs = range(60)
        ours, theirs = await asyncio.gather(
            boss.gather(members.square, inputs, id="squares", concurrency=1),
            other.gather(members.square, inputs, id="squares", concurrency=1),
        )
        assert ours == theirs == [number**2 for number in inputs]
        assert {
            each.mod_revision - each.create_revision for each in await state.list("maps/squares/results/").all()
        } == {0}


async def test_what_others_have_written_among_what_a_map_keeps(state: comity.Client) -> None:
    for junk in (
        "results/x",
        "results/1",
        "results/00000000001",
        "results/000000000\u0661",
        "results/0000009999",
        "digests/x",
    ):
        await state.put(f"maps/squares/{junk}", 1)
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        await state.put("maps/squares/x", 1)
        squares = [number**2 for number in range(50)]
        assert await supervisor.gather(members.square, range(50), id="squares", concurrency=1) == squares
        await state.put("maps/squares/results/0000000000", b"{", content_type="application/json")
        await state.put("maps/squares/results/0000000001", [1])
        await state.put("maps/squares/results/0000000002", {"error": 5})
        failed = await supervisor.gather(members.square, range(50), id="squares", return_exceptions=True)
        assert [each.reason for each in failed[:3]] == ["UNREADABLE"] * 3
        assert failed[3:] == squares[3:]
        await state.put("maps/squares/size", {"fed": "many"})
        with pytest.raises(comity.DecodeError, match="not the size of a map"):
            await supervisor.gather(members.square, range(50), id="squares")
