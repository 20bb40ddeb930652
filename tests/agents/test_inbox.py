"""What agents are sent: exactly one takes it, and it is not lost with whoever took it."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

import comity
from comity import Transaction
from comity.agents import Agent, HandoffMessage, Role
from comity.recipes import Queue
from tests import servers
from tests.agents import members
from tests.agents.conftest import TTL, Launch
from tests.proxy import Proxy
from tests.recipes.cancelling import cancelled_at
from tests.servers import Server
from tests.waiting import until


async def test_messages_wait_for_their_receiver(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner:
        await planner.send("writer", {"page": 1})
        await planner.send("writer", "second")
        await planner.send("writer", "urgent", priority=5)
    async with Agent(state, "writer", ttl=TTL) as writer:
        bodies = []
        for _ in range(3):
            async with writer.receive(timeout=10) as message:
                assert (message.sender, message.attempts) == ("planner", 1)
                assert not isinstance(message, HandoffMessage)
                bodies.append(message.body)
        assert bodies == ["urgent", {"page": 1}, "second"]
        with pytest.raises(TimeoutError):
            async with writer.receive(timeout=0.1):
                pytest.fail("there is nothing")
    assert [entry.key async for entry in state.list("queues/") if "/tail" not in entry.key] == []


async def test_a_role_shares_an_inbox(state: comity.Client) -> None:
    got: dict[str, list[int]] = {"w1": [], "w2": []}

    async def work(agent: Agent) -> None:
        async for message in agent.inbox():
            got[agent.name].append(message.body)

    async with (
        Agent(state, "planner", ttl=TTL) as planner,
        Agent(state, "w1", role="writer", ttl=TTL) as one,
        Agent(state, "w2", role="writer", ttl=TTL) as two,
    ):
        tasks = [asyncio.create_task(work(agent)) for agent in (one, two)]
        for number in range(20):
            await planner.send(Role("writer"), number)
        await planner.send("w2", 100)
        await until(lambda: len(got["w1"]) + len(got["w2"]) == 21)

        async def is_done() -> bool:  # the last ones are acknowledged when the next are asked for
            sizes = [await Queue(state, name).size() for name in ("role:writer", "agent:w2")]
            return all(size[:2] == (0, 0) for size in sizes)

        await until(is_done)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(got["w1"] + got["w2"]) == [*range(20), 100]
    assert 100 in got["w2"]


async def test_what_fails_is_given_back_and_then_a_dead_letter(state: comity.Client) -> None:
    attempts: list[int] = []

    async def fail(agent: Agent) -> None:
        async with agent.receive(timeout=10) as message:
            attempts.append(message.attempts)
            raise ZeroDivisionError

    async with Agent(state, "writer", ttl=TTL, tries=2) as writer:
        await writer.send("writer", "poison")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await fail(writer)
        assert attempts == [1, 2]
        with pytest.raises(TimeoutError):
            async with writer.receive(timeout=0.1):
                pass
    (letter,) = await Queue(state, "agent:writer").dead()
    assert letter.value["body"] == "poison"


async def test_leaving_the_loop_gives_back_what_was_not_acknowledged(state: comity.Client) -> None:
    async with Agent(state, "writer", ttl=TTL) as writer:
        for number in range(3):
            await writer.send("writer", number)
        async with aclosing(writer.inbox()) as inbox:
            async for message in inbox:
                if message.body == 1:
                    break
        async for message in writer.inbox():
            assert (message.body, message.attempts) == (1, 1)
            await message.ack()
            with pytest.raises(RuntimeError, match="already"):
                await message.nack()
            break
        async with writer.receive(timeout=10) as message:
            assert message.body == 2


async def test_done_along_with_other_writes_or_not_at_all(state: comity.Client) -> None:
    async with Agent(state, "writer", ttl=TTL) as writer:

        async def save(tx: Transaction) -> str:
            writer.memory.within(tx).put("page", 1)
            return "saved"

        def fail(tx: Transaction) -> None:
            tx.put("half", 1)
            raise ZeroDivisionError

        await writer.send("writer", "page", also=lambda tx: tx.put("sent", True))
        with pytest.raises(ZeroDivisionError):
            await writer.send("writer", "page", also=fail)
        async with writer.receive(timeout=10) as message:
            with pytest.raises(ZeroDivisionError):
                await message.ack(fail)
            assert not message.settled
            assert await message.ack(save) == "saved"
        assert await writer.memory.value("page") == 1
        assert await state.get("half") is None
        assert await state.get("sent") is not None
        assert (await Queue(state, "agent:writer").size())[:2] == (0, 0)


async def test_what_a_killed_agent_has_taken_is_taken_by_the_next(state: comity.Client, launch: Launch) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner:
        await planner.send(Role("writer"), {"page": 7})
        victim = await launch("w1", members.take_and_hang, role="writer")

        async def taken() -> bool:
            return await state.get("agent-state/w1/taken") is not None

        await until(taken)
        async with Agent(state, "w2", role="writer", ttl=TTL) as other:
            victim.kill()
            async with other.receive(timeout=30) as message:
                assert (message.body, message.attempts) == ({"page": 7}, 2)


async def test_a_cancelled_wait_takes_nothing(state: comity.Client) -> None:
    async with Agent(state, "writer", role="scribe", ttl=TTL) as writer:
        for steps in range(0, 60, 3):
            receiving = asyncio.create_task(writer.receive().__aenter__())
            for _ in range(steps):
                await asyncio.sleep(0)
            await writer.send(Role("scribe"), steps)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            if not receiving.cancelled():
                await receiving.result().nack(counts=False)
            async with writer.receive(timeout=30) as message:
                assert (message.body, message.attempts) == (steps, 1)


def waiting() -> bool:
    return any(getattr(task.get_coro(), "__qualname__", "") == "Queue.get" for task in asyncio.all_tasks())


async def test_a_receiver_that_is_cancelled_anywhere_loses_nothing(state: comity.Client) -> None:
    async with Agent(state, "writer", role="scribe", ttl=TTL) as writer:
        queue = Queue(state, "role:scribe")

        async def unclaimed() -> bool:
            return (await queue.size()).claimed == 0

        wait, cancelled = 0, True
        while cancelled:
            taken: list[object] = []
            ended = asyncio.Event()

            async def take(taken: list[object]) -> None:
                async with writer.receive() as message:
                    taken.append(message.body)

            async def send(ended: asyncio.Event) -> None:
                await until(lambda: waiting() or ended.is_set())
                await writer.send(Role("scribe"), "x")

            sending = asyncio.create_task(send(ended))
            cancelled = await cancelled_at(take(taken), wait)
            ended.set()
            await sending
            await until(unclaimed)
            if (await queue.size()).free:
                async with writer.receive(timeout=30) as message:
                    assert (message.body, message.attempts) == ("x", 1)
            else:
                assert taken == ["x"]
            wait += 1
        assert wait > 4


async def test_what_could_not_be_given_back_is_given_back_later(tmp_path: Path) -> None:
    """The agent lives on, and so does the lease by which it has what it has taken."""
    with servers.start("--store", f"sqlite:{tmp_path}/store") as server:
        async with comity.connect(server.address) as state, Agent(state, "writer", ttl=TTL) as writer:
            await writer.send("writer", "x")

            async def fail() -> None:
                async with writer.receive(timeout=30):
                    await asyncio.to_thread(server.kill)
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await fail()
            await asyncio.to_thread(server.restart)
            async with writer.receive(timeout=60) as message:
                assert (message.body, message.attempts) == ("x", 2)


async def test_what_was_taken_without_an_answer_is_given_back(
    server: Server, namespace: str, state: comity.Client
) -> None:
    queue = Queue(state, "agent:writer")

    async def taken() -> bool:
        return (await queue.size()).claimed == 1

    async with (
        Proxy(server.address) as proxy,
        comity.connect(proxy.address, namespace=namespace, timeout=5.0) as far,
        Agent(far, "writer", ttl=TTL) as writer,
    ):

        async def loses_the_answer() -> bool:
            block = writer.receive()
            receiving = asyncio.create_task(block.__aenter__())
            await until(waiting)
            await queue.put("x")
            proxy.stall()
            lost = False  # it may also be that the request did not come through

            async def decided() -> bool:
                nonlocal lost
                lost = await taken()
                return lost or receiving.done()

            await until(decided)
            await asyncio.wait([receiving])
            proxy.resume()
            if receiving.exception() is None:  # it was faster
                await block.__aexit__(None, None, None)
                return False
            return lost and isinstance(receiving.exception(), comity.ComityError)

        await until(loses_the_answer)
        async with writer.receive(timeout=60) as message:
            assert message.body == "x"


async def test_what_cannot_be_read_becomes_a_dead_letter(state: comity.Client) -> None:
    queue = Queue(state, "agent:writer")
    await queue.put(b"{", content_type="application/json")
    await queue.put({"kind": "handoff", "from": "x" * 2000, "id": 1, "body": 1})
    await queue.put(b'{"kind": "handoff", "from": "\\ud800", "id": 1, "body": 1}', content_type="application/json")
    await queue.put("good")
    async with Agent(state, "writer", ttl=TTL, tries=2) as writer, writer.receive(timeout=30) as message:
        assert message.body == "good"
    assert await queue.size() == (0, 0, 3)
    first, *_ = await queue.dead()
    assert first.value == b"{"


@pytest.mark.parametrize("to", ["", "a/b", Role(""), Role("a/b")])
async def test_receivers_that_cannot_be(state: comity.Client, to: str | Role) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner:
        with pytest.raises(ValueError, match="must be 1 to 63"):
            await planner.send(to, 1)
        with pytest.raises(ValueError, match="must be 1 to 63"):
            await planner.handoff(to, 1)
        with pytest.raises(TypeError):
            await planner.send(7, 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await planner.send("writer", object())
        with pytest.raises(ValueError, match="priority"):
            await planner.send("writer", 1, priority=1000)
        with pytest.raises(comity.InvalidArgument, match="fit into one value"):
            await planner.send("writer", "x" * 2_000_000)


async def test_what_others_have_put_without_an_envelope(state: comity.Client) -> None:
    queue = Queue(state, "agent:writer")
    await queue.put("plain")
    await queue.put([1, 2])
    await queue.put({"body": "no sender", "kind": 7})
    async with Agent(state, "writer", ttl=TTL) as writer:
        bodies = []
        for _ in range(3):
            async with writer.receive(timeout=10) as message:
                bodies.append((message.sender, message.body))
    assert bodies == [("", "plain"), ("", [1, 2]), ("", "no sender")]


async def test_the_history_says_why(state: comity.Client) -> None:
    async with Agent(state, "planner", ttl=TTL) as planner, Agent(state, "writer", ttl=TTL) as writer:
        await planner.send("writer", 1, message="page 1, please")
        await planner.handoff("writer", 2, message="and page 2")
        async with writer.receive(timeout=10) as message:
            await message.ack(message="wrote page 1")
        async with writer.receive(timeout=10) as message:
            assert isinstance(message, HandoffMessage)
            await message.done(also=lambda tx: tx.put("page", 2), message="wrote page 2")
    said = [commit.message async for commit in state.history()]
    assert [one for one in reversed(said) if "page" in one] == [
        *("page 1, please", "and page 2", "wrote page 1", "wrote page 2"),
    ]
