"""A supervisor, a planner, two researchers and a writer answer questions. One is killed on purpose, another is frozen.

Run it with `python examples/research_team.py`: it starts a server, a supervisor, and the four agents as processes. In
the midst of the work a researcher is killed (SIGKILL), which its supervisor sees at once, and later the writer is
stopped (SIGSTOP), so that only the end of its lease tells. Each is replaced, and what it had in hand is done by another
one: nothing is lost, and nothing done twice.

In a terminal it shows the agents, their leases, the queues and the last commits as they change; into a pipe it prints a
line for each commit that has a message. Both are read from the store alone, as any other program could.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import comity
from comity.agents import Directory, Presence, PresenceEvent, Restart, Supervisor
from comity.recipes import Queue
from own_server import own_server
from research_agents import plan, research, write

QUESTIONS = 8


@dataclass(frozen=True)
class Accident:
    """What was done to an agent, and what came of it."""

    victim: Presence  # its last: `detail` is what it had in hand
    sent: signal.Signals
    results: str  # the prefix of what comes of that
    seen: float  # seconds until its lease had ended
    replaced: float  # seconds until another one had its place


async def work(state: comity.Client, pace: float, ttl: float) -> list[Accident]:
    """Have the report written, by a team to which accidents happen.

    ttl: of the writer: in so many seconds it is missed when it is frozen.
    """
    accidents: list[Accident] = []
    async with Supervisor(state, "supervisor", ttl=10, grace=2.0) as team, asyncio.TaskGroup() as group:
        await team.spawn(plan, QUESTIONS, name="planner", role="planner", mode="process", restart=Restart.TRANSIENT)
        for name in ("researcher-1", "researcher-2"):
            await team.spawn(research, pace, name=name, role="researcher", mode="process")
        await team.spawn(write, QUESTIONS, pace, name="writer", role="writer", mode="process", ttl=ttl)
        causing = group.create_task(cause(state, accidents))
        async with state.watch(key="report", initial=True) as watch:
            async for item in watch:
                if item.entries if isinstance(item, comity.Resync) else item.is_put:
                    break
        causing.cancel()
    return accidents


async def cause(state: comity.Client, accidents: list[Accident]) -> None:
    async with contextlib.aclosing(Directory(state).watch()) as events:
        accidents.append(await accident(state, events, "researcher", signal.SIGKILL, "findings/"))
        accidents.append(await accident(state, events, "writer", signal.SIGSTOP, "sections/"))


async def accident(
    state: comity.Client, events: AsyncGenerator[PresenceEvent], role: str, sent: signal.Signals, results: str
) -> Accident:
    """Send a signal to an agent that is in the midst of something, and wait until it is replaced."""
    clock = asyncio.get_running_loop().time
    while True:
        victim = await busy(state, events, role, results)
        await state.put("accident", sent.name, message=f"{sent.name} to {victim.name}, which is at {victim.detail}")
        began = clock()
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, sent)
        last, revision = await gone(events, victim.name)
        seen = clock() - began
        async for event in events:
            if event.presence.name == victim.name:
                break
        if await state.get(f"{results}{last.detail}", revision=revision) is None:
            return Accident(last, sent, results, seen, clock() - began)
        # It had just finished that.


async def busy(state: comity.Client, events: AsyncGenerator[PresenceEvent], role: str, results: str) -> Presence:
    """Wait until an agent of the role is half-way through something, and something else was finished before."""
    async for event in events:
        one = event.presence
        midst = one.role == role and not event.is_end and 0.4 <= (one.progress or 0) < 0.8
        if midst and await state.list(results, keys_only=True).all():
            return one
    raise RuntimeError("the client was closed")


async def gone(events: AsyncGenerator[PresenceEvent], name: str) -> tuple[Presence, int]:
    """Wait until the lease of an agent has ended: what it said last, and the revision that ended it."""
    async for event in events:
        if event.presence.name == name and event.is_end:
            return event.presence, event.revision
    raise RuntimeError("the client was closed")


async def tell(state: comity.Client, accidents: list[Accident]) -> bool:
    """Print the report and what happened. Whether all was as it should be."""
    report = await state.get("report")
    assert report is not None
    print(f"\n{report.value}\n")
    for one in accidents:
        victim, entry = one.victim, await state.get(f"{one.results}{one.victim.detail}")
        assert entry is not None
        how = "killed" if one.sent is signal.SIGKILL else "frozen"
        print(f"{victim.name}, incarnation {victim.incarnation}, was {how} in the midst of {victim.detail}")
        print(f"  its lease had ended after {one.seen:.1f} s, and it was replaced after {one.replaced:.1f} s")
        print(f"  {victim.detail} was done by {entry.value['by']}, incarnation {entry.value['incarnation']}")
    once = True
    for what, prefix in (("researched", "findings/"), ("written about", "sections/")):
        entries = await state.list(prefix).all()
        times = [entry.version for entry in entries]  # how often each was written
        once = once and times == [1] * QUESTIONS
        print(f"{len(times)} of {QUESTIONS} questions {what}, {times.count(1)} of them exactly once")
    sizes = [await Queue(state, name).size() for name in ("role:researcher", "agent:writer")]
    print(f"left in the queues: {sum(sum(size) for size in sizes)}")
    return once and len(accidents) == 2 and not any(map(any, sizes))


async def main(address: str, *, pace: float, ttl: float) -> bool:
    from team_view import show  # the agents, whose processes import this module, have no use for it

    namespace = f"research-{uuid.uuid4().hex[:8]}"
    async with comity.connect(address, namespace=namespace, author="audience") as state:
        await state.wait_for_ready(timeout=5)
        await state.put("begin", True, message="the beginning")
        async with asyncio.TaskGroup() as group:
            group.create_task(show(state, until="end"))
            accidents = await work(state, pace, ttl)
            await state.put("end", True, message="the end")
        return await tell(state, accidents)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="of a server to use, HOST:PORT, instead of one of its own")
    parser.add_argument("--fast", action="store_true", help="be done in half the time")
    arguments = parser.parse_args()
    logging.getLogger("comity").addHandler(logging.NullHandler())  # what it would say is shown from the store
    pace, ttl = (0.1, 1.0) if arguments.fast else (0.2, 2.0)
    try:
        with contextlib.nullcontext(arguments.address) if arguments.address else own_server() as where:
            good = asyncio.run(main(where, pace=pace, ttl=ttl))
    except KeyboardInterrupt:
        sys.exit(130)
    except comity.Unavailable as error:
        sys.exit(str(error))
    except ExceptionGroup as group:
        if group.subgroup(BrokenPipeError) is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has had enough, as `head` does
        sys.exit(1)
    if not good:
        sys.exit("it did not go as it should")
