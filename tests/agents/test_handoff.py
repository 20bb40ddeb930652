"""Handoffs: exactly one receiver does it, with the whole context, whoever dies meanwhile."""

import asyncio
import math

import pytest

import comity
from comity.agents import Agent, HandoffFailed, HandoffMessage, Role
from comity.recipes import Queue
from tests.agents import members
from tests.agents.conftest import TTL, Launch
from tests.waiting import until

CONTEXT = {
    "goal": "the report",
    "found": [{"page": n, "text": "x" * 100} for n in range(1000)],
    "nested": {"a": [None]},
}


async def test_the_whole_context_is_preserved_and_the_sender_is_told(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner, Agent(state, "w1", role="writer", ttl=TTL) as writer:
        handoff = await planner.handoff(
            Role("writer"), CONTEXT, also=lambda tx: planner.memory.within(tx).put("phase", "handed over")
        )
        assert await planner.memory.value("phase") == "handed over"
        assert (await handoff.status()).status == "sent"
        async with writer.receive(timeout=10) as message:
            assert isinstance(message, HandoffMessage)
            assert (message.context, message.sender) == (CONTEXT, "planner")
            taken = await handoff.taken(timeout=10)
            assert (taken.status, taken.by, taken.incarnation, taken.attempts) == ("taken", "w1", writer.fence, 1)
            with pytest.raises(TimeoutError):
                await handoff.result(timeout=0.05)
            await message.done({"pages": 12}, also=lambda tx: writer.memory.within(tx).put("pages", 12))
        assert await handoff.result(timeout=10) == {"pages": 12}
        assert await handoff.result() == {"pages": 12}
        assert await state.list("handoffs/").all() == []
        assert await writer.memory.value("pages") == 12


async def test_exactly_one_of_many_takes_it(state: comity.Client) -> None:
    took: list[str] = []

    async def work(agent: Agent) -> None:
        async for message in agent.inbox():
            assert isinstance(message, HandoffMessage)
            took.append(message.context)
            await message.done(agent.name)

    agents = [Agent(state, f"w{number}", role="writer", ttl=TTL) for number in range(4)]
    async with Agent(state, "planner", ttl=TTL) as planner:
        for agent in agents:
            await agent.__aenter__()
        tasks = [asyncio.create_task(work(agent)) for agent in agents]
        handoffs = await asyncio.gather(*(planner.handoff(Role("writer"), f"job {n}") for n in range(12)))
        results = await asyncio.gather(*(handoff.result(timeout=60) for handoff in handoffs))
        assert set(results) <= {"w0", "w1", "w2", "w3"}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for agent in agents:
            await agent.__aexit__(None, None, None)
    assert sorted(took) == sorted(f"job {n}" for n in range(12))


async def test_a_receiver_that_is_killed_is_replaced(state: comity.Client, launch: Launch) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner:
        handoff = await planner.handoff(Role("writer"), CONTEXT)
        victim = await launch("w1", members.take_and_hang, role="writer")
        assert (await handoff.taken(timeout=60)).by == "w1"
        victim.kill()
        await launch("w2", members.work, role="writer")
        assert await handoff.result(timeout=60) == {"by": "w2", "of": CONTEXT}


async def test_a_sender_that_is_killed_has_handed_off_once(state: comity.Client, launch: Launch) -> None:
    victim = await launch("planner", members.hand_off, "w1", CONTEXT)

    async def sent() -> bool:
        return await state.get("handoffs/planner/once") is not None

    await until(sent)
    victim.kill()
    async with Agent(state, "planner", ttl=TTL, wait=60) as planner, Agent(state, "w1", ttl=TTL) as writer:
        handoff = await planner.handoff("w1", "again", id="once")
        async with writer.receive(timeout=10) as message:
            assert isinstance(message, HandoffMessage)
            assert message.context == CONTEXT
            await message.done("done")
        assert await handoff.result(timeout=10) == "done"
        (found,) = [one async for one in planner.handoffs()]
        assert (found.id, await found.result()) == ("once", "done")
        with pytest.raises(TimeoutError):
            async with writer.receive(timeout=0.1):
                pass
        await found.forget()
        assert [one async for one in planner.handoffs()] == []


async def test_refused(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner, Agent(state, "writer", ttl=TTL) as writer:
        handoff = await planner.handoff("writer", "nonsense")
        async with writer.receive(timeout=10) as message:
            assert isinstance(message, HandoffMessage)
            await message.refuse("there is no goal")
        with pytest.raises(HandoffFailed, match="writer has refused it: there is no goal") as failed:
            await handoff.result(timeout=10)
        assert (failed.value.reason, failed.value.metadata["by"]) == ("REFUSED", "writer")


async def test_failed_too_often(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner, Agent(state, "writer", ttl=TTL, tries=2) as writer:
        handoff = await planner.handoff("writer", "poison")
        waiting = asyncio.create_task(handoff.result(timeout=60))
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                async with writer.receive(timeout=10):
                    raise ZeroDivisionError
        with pytest.raises(HandoffFailed, match="tried 2 times, the last time by writer") as failed:
            await waiting
        assert failed.value.reason == "DEAD"
        status = await handoff.status()
        assert (status.status, status.by, status.attempts, status.is_final) == ("dead", "writer", 2, True)
        with pytest.raises(HandoffFailed):
            await handoff.taken()

        assert await Queue(state, "agent:writer").requeue() == 1
        async with writer.receive(timeout=10) as message:
            assert isinstance(message, HandoffMessage)
            await message.done("at last")
        assert await handoff.result(timeout=10) == "at last"


async def test_the_sender_is_told_where_each_receiver_died(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner:
        handoff = await planner.handoff("writer", "poison")

        async def die() -> None:
            async with Agent(state, "writer", ttl=TTL, tries=1) as writer, writer.receive(timeout=10):
                await state.revoke_lease(writer.lease.id)
                await asyncio.Event().wait()

        async def dead() -> bool:
            return (await handoff.status()).status == "dead"

        with pytest.raises(comity.LeaseLost):
            await die()
        assert (await handoff.status()).status == "taken"
        async with Agent(state, "writer", ttl=TTL, tries=1) as writer:
            receiving = asyncio.create_task(writer.receive().__aenter__())
            await until(dead)
            receiving.cancel()
            await asyncio.wait([receiving])
        with pytest.raises(HandoffFailed, match="tried 1 times"):
            await handoff.result()


async def test_many_wait_at_once(state: comity.Client) -> None:
    """More than a connection may have streams."""
    async with Agent(state, "planner", ttl=TTL) as planner, Agent(state, "writer", ttl=TTL) as writer:
        handoffs = await asyncio.gather(*(planner.handoff("writer", number, id=f"n{number}") for number in range(20)))
        waiting = [asyncio.create_task(handoff.result()) for handoff in handoffs for _ in range(60)]
        working = asyncio.create_task(members.work(writer))
        results = await asyncio.gather(*waiting)
        assert [result["of"] for result in results] == [number for number in range(20) for _ in range(60)]
        working.cancel()
        await asyncio.wait([working])


async def test_withdrawn(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner, Agent(state, "writer", ttl=TTL) as writer:
        handoff = await planner.handoff("writer", 1)
        waiting = asyncio.create_task(handoff.result())
        await planner.send("writer", "after")
        await handoff.forget()
        with pytest.raises(comity.NotFound, match="withdrawn"):
            await waiting
        async with writer.receive(timeout=10) as message:
            assert message.body == "after"


async def test_done_twice_counts_once(state: comity.Client) -> None:
    """A receiver that was taken for dead, and goes on: another one has taken it meanwhile."""
    async with Agent(state, "planner", ttl=TTL) as planner, Agent(state, "w2", role="writer", ttl=TTL) as other:
        handoff = await planner.handoff(Role("writer"), 1)
        refused: list[comity.LeaseLost] = []

        async def stale() -> None:
            async with Agent(state, "w1", role="writer", ttl=TTL) as writer, writer.receive(timeout=10) as message:
                assert isinstance(message, HandoffMessage)
                await state.revoke_lease(writer.lease.id)
                try:
                    await asyncio.Event().wait()
                finally:
                    async with other.receive(timeout=10) as again:
                        assert isinstance(again, HandoffMessage)
                        await again.done("second")
                    try:
                        await message.done("first", also=lambda tx: tx.put("late", 1))
                    except comity.LeaseLost as error:
                        refused.append(error)

        with pytest.raises(comity.LeaseLost):
            await stale()
        assert refused
        assert await handoff.result(timeout=10) == "second"
        assert await state.get("late") is None


async def test_contexts_that_cannot_be(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner:
        with pytest.raises(comity.InvalidArgument, match="fit into one value"):
            await planner.handoff("writer", "x" * 2_000_000)
        with pytest.raises(TypeError):
            await planner.handoff("writer", {1, 2})
        with pytest.raises(ValueError, match="the id"):
            await planner.handoff("writer", 1, id="a/b")
        assert [entry.key async for entry in state.list("handoffs/")] == []
        handoff = await planner.handoff("writer", 1)
        for wait in (handoff.result, handoff.taken):
            with pytest.raises(TypeError, match="timeout"):
                await wait("1")  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="timeout"):
                await wait(math.nan)
        with pytest.raises(TypeError, match="timeout"):
            planner.receive("1")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            planner.receive(math.nan)


@pytest.mark.parametrize("end", ["done", "refuse", "died"])
async def test_what_was_withdrawn_is_not_taken_for_what_is_sent_later_by_its_id(state: comity.Client, end: str) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner, Agent(state, "writer", ttl=TTL, tries=1) as writer:
        first = await planner.handoff("writer", "one", id="x")
        async with writer.receive(timeout=10) as message:
            assert isinstance(message, HandoffMessage)
            await first.forget()
            second = await planner.handoff("writer", "two", id="x")
            if end == "done":
                await message.done("of one")
            elif end == "refuse":
                await message.refuse("one is nonsense")
            else:
                await message.nack()
        assert (await second.status()).status == "sent"
        async with writer.receive(timeout=10) as message:
            assert isinstance(message, HandoffMessage)
            assert message.context == "two"
            await message.done("of two")
        assert await second.result(timeout=10) == "of two"


async def test_what_was_withdrawn_is_not_done_when_its_id_is_given_anew(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner, Agent(state, "writer", ttl=TTL) as writer:
        await (await planner.handoff("writer", "one", id="x")).forget()
        second = await planner.handoff("writer", "two", id="x")
        async with writer.receive(timeout=10) as message:
            assert isinstance(message, HandoffMessage)
            assert message.context == "two"
            await message.done("of two")
        assert await second.result(timeout=10) == "of two"


async def test_what_others_have_written_among_the_handoffs_is_passed_over(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner, Agent(state, "writer", ttl=TTL) as writer:
        await planner.handoff("writer", "it", id="mine")
        await state.put("handoffs/planner/malformed", b"{", content_type="application/json")
        await state.put("handoffs/planner/bytes", b"\xff")
        for key, value in (
            ("list", [1]),
            ("number", 5),
            ("status", {"status": 5}),
            ("none", {}),
            ("a/b", {"status": "sent"}),
        ):
            await state.put(f"handoffs/planner/{key}", value)
        (found,) = [each async for each in planner.handoffs()]
        async with writer.receive(timeout=10) as message:
            assert isinstance(message, HandoffMessage)
            await message.done("done")
        assert await found.result(timeout=10) == "done"
