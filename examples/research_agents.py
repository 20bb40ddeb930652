"""Who does the work in research_team.py: a planner, researchers and a writer.

The research is arithmetic: halve a number that is even, or triple it and add one, until it is 1. Each question is which
number of a range takes the most steps.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any

import comity
from comity.agents import Agent, HandoffMessage, Role

__all__ = ["plan", "research", "write"]

RANGE = 1_000  # numbers that a question is about
PARTS = 5  # in which a range is gone through


class KnownAlready(Exception):
    """Raised in a transaction, it rolls the transaction back."""


async def plan(agent: Agent, questions: int) -> None:
    """Ask the questions, and say how far the others are with them."""

    def note(tx: comity.Transaction, number: int) -> None:
        agent.memory.within(tx).put("asked", number)  # along with the sending, or neither

    asked = await agent.memory.value("asked", 0)  # more than none where this one replaces a planner that has died
    for number in range(asked, questions):
        question = {"id": f"q-{number + 1}", "first": number * RANGE + 1, "last": (number + 1) * RANGE}
        await agent.send(
            Role("researcher"),
            question,
            also=partial(note, number=number + 1),
            message=f"asks {question['id']}: which of {question['first']:,} to {question['last']:,} takes longest?",
        )
    async with agent.state.watch("sections/", from_revision=1, types=[comity.EventType.PUT]) as sections:
        for written in range(questions):
            await agent.report("waiting", progress=written / questions)
            await anext(sections)


async def research(agent: Agent, pace: float) -> None:
    """Answer questions, and hand each answer over to the writer with all that belongs to it."""
    async for message in agent.inbox():
        question = message.body
        name, first = question["id"], question["first"]
        entry = await agent.state.get(f"notes/{name}")
        notes: dict[str, Any] = {"parts": 0, "longest": []} if entry is None else entry.value  # of one that has died
        how = "takes" if entry is None else f"goes on, after {notes['parts']} of {PARTS} parts by {notes['by']}, with"
        notes["by"] = agent.name
        await agent.state.put(f"notes/{name}", notes, guard=agent, message=f"{how} {name}")
        for part in range(notes["parts"], PARTS):
            await agent.report("researching", progress=part / PARTS, detail=name)
            await asyncio.sleep(pace)
            start = first + part * RANGE // PARTS
            notes["longest"] = longest([*notes["longest"], *range(start, start + RANGE // PARTS)])
            notes["parts"] = part + 1
            await agent.state.put(f"notes/{name}", notes, guard=agent)
        context = {"question": question, "longest": [[number, steps(number)] for number in notes["longest"]]}

        async def once(tx: comity.Transaction, name: str = name, context: dict[str, Any] = context) -> None:
            if await tx.get(f"findings/{name}") is not None:
                raise KnownAlready
            tx.put(f"findings/{name}", {**context, "by": agent.name, "incarnation": agent.fence})

        with contextlib.suppress(KnownAlready):  # handed over by one that died before the question was off the list
            await agent.handoff("writer", context, id=name, also=once, message=f"hands {name} over to the writer")
        await agent.report("idle", progress=1, detail=None)


async def write(agent: Agent, questions: int, pace: float) -> None:
    """Write a section about each answer, and put them together when the last one is there."""
    async for message in agent.inbox():
        assert isinstance(message, HandoffMessage)
        question, name = message.context["question"], message.context["question"]["id"]
        await agent.report("writing", progress=0.5, detail=name)
        await asyncio.sleep(pace)
        (number, most), *others = message.context["longest"]
        text = f"{question['first']:>5,} to {question['last']:>5,}: {number:,} takes {most} steps"
        if others:
            text += f", {others[0][0]:,} takes {others[0][1]}"

        async def add(tx: comity.Transaction, name: str = name, text: str = text) -> None:
            tx.put(f"sections/{name}", {"text": text, "by": agent.name, "incarnation": agent.fence})
            sections = await tx.list("sections/")
            if len(sections) == questions:
                tx.put("report", "\n".join(sorted(entry.value["text"] for entry in sections)))

        await message.done({"section": f"sections/{name}"}, also=add, message=f"writes about {name}")
        await agent.report("idle", progress=1, detail=None)


def longest(numbers: Iterable[int]) -> list[int]:
    """The two that take the most steps; the smaller one first of those that take as many."""
    return sorted(numbers, key=lambda number: (-steps(number), number))[:2]


def steps(number: int) -> int:
    """How many it takes to come down to 1."""
    for count in itertools.count():
        if number == 1:
            return count
        number = 3 * number + 1 if number % 2 else number // 2
    raise AssertionError
