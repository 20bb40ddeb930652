"""What agents of tests do that are processes of their own."""

import asyncio
import atexit
import contextlib
import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

import comity
from comity import Resync
from comity.agents import Agent, HandoffMessage, Supervisor


async def stay(agent: Agent) -> None:
    """Be there until the end."""
    await agent.report("staying")
    await asyncio.Event().wait()


async def take_and_hang(agent: Agent) -> None:
    """Take what comes first, and never do it."""
    async with agent.receive() as message:
        await agent.memory.put("taken", message.body)
        await agent.report("hanging")
        await asyncio.Event().wait()


async def write_on(agent: Agent) -> None:
    """Write without end."""
    for number in itertools.count():
        await agent.memory.put("number", number)


async def work(agent: Agent) -> None:
    """Do whatever is handed over."""
    async for message in agent.inbox():
        if isinstance(message, HandoffMessage):
            await message.done({"by": agent.name, "of": message.context})


async def work_and_count(agent: Agent) -> None:
    """Do whatever is handed over, and write down that it was done."""
    async for message in agent.inbox():
        assert isinstance(message, HandoffMessage)
        number = message.context
        await message.done(number, also=functools.partial(_count, key=f"done/{number}"))


def _count(tx: comity.Transaction, key: str) -> None:
    tx.increment(key)


async def hand_off(agent: Agent, to: str, context: Any) -> None:
    """Hand off under an id of its own, and hang."""
    await agent.handoff(to, context, id="once")
    await agent.report("handed-off")
    await asyncio.Event().wait()


async def count_up(agent: Agent, to: int) -> None:
    """Count in private state, one step at a time, with a checkpoint at each."""
    for _ in range(to - await agent.memory.value("count", 0)):
        await agent.memory.update("count", lambda number: number + 1, 0)
        await agent.checkpoint("counted")
    await agent.report("counted")
    await asyncio.Event().wait()


async def fail(agent: Agent) -> None:
    raise ValueError(f"{agent.name} cannot")


async def return_and_exit(agent: Agent) -> None:
    """Return, in a process that has something against it."""
    atexit.register(os._exit, 3)


async def mark_and_fail(agent: Agent) -> None:
    """Make some checkpoints, and fail with what comes first."""
    for _ in range(4):
        await agent.checkpoint()
    async with agent.receive() as message:
        raise ValueError(message.body)


async def exit_with_3(agent: Agent) -> None:
    os._exit(3)


async def ignore_the_end(agent: Agent) -> None:
    """Go on when asked to end."""
    await agent.report("stubborn")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def wait_for_a_word(agent: Agent) -> None:
    """Go on when asked to end, until there is the key."""
    with contextlib.suppress(asyncio.CancelledError):
        await agent.report("stubborn")  # who sees it may ask at once, before it is answered
        await asyncio.Event().wait()
    async with agent.state.watch(key="go", initial=True) as watch:
        async for item in watch:
            if item.entries if isinstance(item, Resync) else item.is_put:
                return


async def ignore_cancellation(agent: Agent) -> None:
    """Go on twice, and then end."""
    for _ in range(2):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def finish(agent: Agent) -> None:
    await agent.memory.put("finished", True)


async def same(agent: Agent, value: object) -> object:
    return value


async def square(agent: Agent, number: int) -> int:
    return number * number


async def think_and_square(agent: Agent, number: int) -> int:
    await asyncio.sleep(0.05)
    return number * number


async def slow_square(agent: Agent, number: int) -> int:
    """Says which inputs were begun, and goes on once it may."""
    await agent.state.put(f"begun/{number}/{agent.fence}", agent.presence.pid)
    async with agent.state.watch(key="go", initial=True) as watch:
        async for item in watch:
            if item.entries if isinstance(item, Resync) else item.is_put:
                break
    return number * number


async def enlarge(agent: Agent, number: int) -> str:
    return "x" * 2_000_000


async def fail_on_odd(agent: Agent, number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


async def read(agent: Agent, name: str) -> None:
    """Fail by what the client raises, or by the end of a task."""
    if name == "cancelled":
        raise asyncio.CancelledError
    if name == "lost":
        async with agent.state.lease(60) as lease:
            await agent.state.revoke_lease(lease.id)
            await agent.state.put(name, 1, guard=lease)
    raise comity.NotFound(name)


async def die_on_3(agent: Agent, number: int) -> int:
    if number == 3:
        os._exit(1)
    return number


async def supervise(address: str, namespace: str, name: str) -> None:
    """A supervisor with one child that is a process."""
    async with (
        comity.connect(address, namespace=namespace) as state,
        Supervisor(state, name, ttl=2.0) as supervisor,
    ):
        await supervisor.spawn(stay, name="stayer", mode="process")
        await supervisor.wait()


async def supervise_crew(address: str, namespace: str, name: str) -> None:
    """A supervisor with three children that are processes, and a task."""
    async with (
        comity.connect(address, namespace=namespace) as state,
        Supervisor(state, name, ttl=1.0) as supervisor,
    ):
        for number in range(3):
            await supervisor.spawn(stay, name=f"process-{number}", mode="process", ttl=60.0)
        await supervisor.spawn(stay, name="task", ttl=60.0)
        await supervisor.wait()


async def supervise_map(address: str, namespace: str, name: str) -> None:
    async with (
        comity.connect(address, namespace=namespace) as state,
        Supervisor(state, name, ttl=2.0) as supervisor,
    ):
        async for _ in supervisor.map(slow_square, range(8), id="squares", concurrency=2, mode="process"):
            pass


def run_supervisor(address: str, namespace: str, name: str) -> None:
    asyncio.run(supervise(address, namespace, name))


def run_crew(address: str, namespace: str, name: str) -> None:
    asyncio.run(supervise_crew(address, namespace, name))


def run_map(address: str, namespace: str, name: str) -> None:
    asyncio.run(supervise_map(address, namespace, name))


class Unloadable:
    """A function that ends every process to which it is sent."""

    async def __call__(self, agent: Agent, number: int) -> int:
        return number

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        return os._exit, (1,)


async def stay_with(agent: Agent, number: int) -> object:
    """What it returns is no JSON."""
    return object()


async def fail_unreadably(agent: Agent, number: int = 1) -> int:
    """With a text that no UTF-8 holds, as of a file name."""
    if number % 2:
        raise ValueError("no \udcff.txt")
    return number


def plain(agent: Agent) -> None:
    """What no child can run."""


async def supervise_others(agent: Agent) -> None:
    """A supervisor that is a child, with a child that does not end when it is asked to."""
    async with Supervisor(agent.state, "inner", ttl=60.0, grace=3.0) as supervisor:
        child = await supervisor.spawn(ignore_the_end, name="stubborn", mode="process", ttl=600.0)
        await child.ready()
        await agent.report("supervising")
        await supervisor.wait()
