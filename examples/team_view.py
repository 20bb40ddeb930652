"""What research_team.py shows while it runs: read from the store alone, in a terminal as tables, else as lines."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

import comity
from comity.agents import Directory, PresenceChange, PresenceEvent
from comity.recipes import Queue
from comity.recipes.queue import QueueSize

__all__ = ["show"]

CHILDREN = "supervisor-children/supervisor/"
QUEUES = ("role:researcher", "agent:writer")
COMMITS = 10
SECONDS = 0.2  # between looks
WIDTHS = {"status": 15, "lease": 5, "restarts": 20}  # so that it stays where it is


async def show(state: comity.Client, until: str) -> None:
    """Show what happens in the namespace, from its beginning until a key is written."""
    if not sys.stdout.isatty():
        async for commit in history(state, until):
            print(f"revision {commit.revision:>3}  {commit.author:<12}  {commit.message}", flush=True)
        return
    board = Board(state)
    with Live(console=Console(highlight=False, markup=False, emoji=False), auto_refresh=False) as live:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(board.follow_agents()), group.create_task(board.draw(live))]
            async for commit in history(state, until):
                board.commits.append(commit)
            for task in tasks:
                task.cancel()
        await board.look()
        live.update(board.picture(), refresh=True)


async def history(state: comity.Client, until: str) -> AsyncGenerator[comity.Commit]:
    """Every commit that has a message, in order, up to the one that writes a key."""
    async with state.watch("", from_revision=1) as watch:
        async for commit in watch.commits():
            if isinstance(commit, comity.Resync):
                continue  # the server has forgotten some; this goes on with what follows
            if commit.message:
                yield commit
            if any(event.key == until for event in commit.events):
                return


class Board:
    """What is known at the moment."""

    def __init__(self, state: comity.Client) -> None:
        self.commits: deque[comity.Commit] = deque(maxlen=COMMITS)
        self._state = state
        self._agents: dict[str, PresenceEvent] = {}  # the last one of each, also of those that are gone
        self._remaining: dict[int, float] = {}  # seconds, by the lease
        self._children: dict[str, dict[str, Any]] = {}  # what their supervisor has noted of them
        self._queues: dict[str, QueueSize] = {}

    async def follow_agents(self) -> None:
        async for event in Directory(self._state).watch():
            self._agents[event.presence.name] = event

    async def draw(self, live: Live) -> None:
        while True:
            await self.look()
            live.update(self.picture(), refresh=True)
            await asyncio.sleep(SECONDS)

    async def look(self) -> None:
        """See what no watch tells, such as the time that leases have left; and what is as easily looked up."""
        self._remaining = {lease.id: lease.remaining async for lease in self._state.list_leases()}
        self._children = {entry.key.removeprefix(CHILDREN): entry.value async for entry in self._state.list(CHILDREN)}
        self._queues = {name: await Queue(self._state, name).size() for name in QUEUES}

    def picture(self) -> Group:
        agents = table("agent", "role", "status", "progress", "since", "lease", "restarts")
        for name, event in sorted(self._agents.items()):
            one, child = event.presence, self._children.get(name, {})
            style = "" if not event.is_end else "red" if event.change is PresenceChange.CRASHED else "dim"
            status = event.change.value if event.is_end else f"{one.status} {one.detail or ''}"
            remaining = self._remaining.get(one.incarnation)
            agents.add_row(
                *(Text(text, style) for text in (name, one.role, status)),
                ProgressBar(total=1, completed=one.progress or 0, width=12),
                Text(f"{one.started:%H:%M:%S}", style),
                "" if remaining is None else f"{remaining:.1f} s",
                Text(f"{child['restarts']}: {child['why']}" if child.get("restarts") else ""),
            )
        queues = table("queue", "free", "claimed", "dead")
        for name, size in self._queues.items():
            queues.add_row(name, *map(str, size))
        commits = table("revision", "author", "message")
        for commit in self.commits:
            commits.add_row(str(commit.revision), Text(commit.author), Text(commit.message))
        return Group(agents, Text(), queues, Text(), commits)


def table(*columns: str) -> Table:
    made = Table(box=None)
    for name in columns:
        made.add_column(name, no_wrap=True, min_width=WIDTHS.get(name))
    return made
