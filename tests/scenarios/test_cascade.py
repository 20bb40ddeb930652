"""A dependency breaks under layers of agents: it is left alone, and the layers above go on."""

import asyncio

from comity import Client
from comity.agents import Agent, HandoffFailed, HandoffMessage, Role, Supervisor
from comity.recipes import CircuitBreaker, CircuitOpen, CircuitState
from tests.waiting import until

TTL = 20.0
MIDDLE, FAILURES, REQUESTS = 4, 3, 20


class Broken(Exception):
    """What the backend answers with while it is broken."""


class Backend:
    """What the lowest layer depends on."""

    def __init__(self) -> None:
        self.calls = 0
        self.works = False
        self.gate = asyncio.Event()  # open: it answers at once
        self.gate.set()

    async def look_up(self, number: int) -> str:
        self.calls += 1
        await self.gate.wait()
        if not self.works:
            raise Broken(f"call {self.calls}")
        return f"fresh {number}"


def backend_breaker(state: Client) -> CircuitBreaker:
    return CircuitBreaker(state, "backend", FAILURES, within=60, reset_after=60, counts=Broken)


async def answer(agent: Agent, backend: Backend) -> None:
    """The middle layer: looks up what it is asked, or does without while the backend is known to be broken."""
    breaker = backend_breaker(agent.state)
    try:
        async for message in agent.inbox():
            assert isinstance(message, HandoffMessage)
            try:
                await message.done(await breaker.call(backend.look_up, message.context))
            except CircuitOpen:
                await message.done(f"from memory {message.context}")
            except Broken as error:
                await message.refuse(str(error))
            await agent.report(f"{await breaker.state()}")
    finally:
        await breaker.close()


async def test_a_circuit_breaker_stops_a_cascade_between_layers_of_agents(world: Client) -> None:
    backend = Backend()
    async with Supervisor(world, "lead", ttl=TTL) as lead, Agent(world, "front", ttl=TTL) as front:
        layer = [await lead.spawn(answer, backend, name=f"middle-{n}", role="middle") for n in range(MIDDLE)]
        own = CircuitBreaker(world, "middle", REQUESTS, counts=HandoffFailed)  # of the layer above

        async def ask(number: int) -> str:
            handoff = await front.handoff(Role("middle"), number)
            result: str = await own.call(handoff.result)
            return result

        async def ask_all(*numbers: int) -> list[str | BaseException]:
            return await asyncio.gather(*(ask(number) for number in numbers), return_exceptions=True)

        async def insist() -> str:
            while (fresh := await ask(1)) != "fresh 1":
                pass
            return fresh

        async def all_are(state: CircuitState) -> bool:
            """Whether each of the layer has seen it, as it says when it is asked something."""
            asked = [await front.handoff(child.name, 0) for child in layer]
            await asyncio.gather(*(handoff.result() for handoff in asked), return_exceptions=True)
            return all(child.presence is not None and child.presence.status == state for child in layer)

        # It breaks. Failures that the agents have seen one by one make all of them leave it alone.
        for number in range(FAILURES):
            (failed,) = await ask_all(number)
            assert isinstance(failed, HandoffFailed)
        await until(lambda: all_are(CircuitState.OPEN))
        calls = backend.calls
        assert calls >= FAILURES
        answers = await ask_all(*range(REQUESTS))
        assert answers == [f"from memory {number}" for number in range(REQUESTS)]
        assert backend.calls == calls
        assert await own.state() is CircuitState.CLOSED  # the layer above was spared: nothing came up to it any more

        # A while later one asks whether it works again. It does not.
        await a_while_passes(world)
        while backend.calls == calls:
            await ask_all(0)
        await ask_all(*range(REQUESTS))
        assert backend.calls == calls + 1

        # And again: while that one waits for the answer, nobody else asks.
        backend.works = True
        backend.gate.clear()
        await a_while_passes(world)
        asking = asyncio.create_task(insist())
        await until(lambda: backend.calls == calls + 2)
        others = await ask_all(*range(REQUESTS))
        assert others == [f"from memory {number}" for number in range(REQUESTS)]
        assert (backend.calls, asking.done()) == (calls + 2, False)
        backend.gate.set()
        assert await asking == "fresh 1"
        await until(lambda: all_are(CircuitState.CLOSED))
        assert await ask_all(*range(REQUESTS)) == [f"fresh {number}" for number in range(REQUESTS)]
        await own.close()
        assert [child.status.restarts for child in layer] == [0] * MIDDLE
    assert await world.list("breakers/backend/").all() == []


async def a_while_passes(world: Client) -> None:
    """The lease ends which says that the circuit is open."""
    (opening,) = await world.list("breakers/backend/state/open").all()
    await world.revoke_lease(opening.lease_id)
