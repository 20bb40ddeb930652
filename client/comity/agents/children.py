"""What a supervisor knows of its children, and what it shows of them."""

import asyncio
import enum
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from .presence import Presence
from .process import Work
from .restarts import Restart, RestartLimit, Strategy
from .running import End, Running

__all__ = ["Child", "ChildState", "ChildStatus", "Group", "Mode", "Roster", "Spec"]

Mode = Literal["task", "process"]


class ChildState(enum.StrEnum):
    """How far a child is."""

    STARTING = "starting"  # it was started, and is not there yet
    RUNNING = "running"  # it is there
    STOPPING = "stopping"
    RETURNED = "returned"  # for good: its function returned
    FAILED = "failed"  # for good: it failed, and is not to be restarted
    STOPPED = "stopped"  # for good: by the supervisor

    @property
    def is_final(self) -> bool:
        return self in (ChildState.RETURNED, ChildState.FAILED, ChildState.STOPPED)


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """A child as it is now."""

    name: str
    mode: Mode
    state: ChildState
    restarts: int
    presence: Presence | None  # None: it is not there
    pid: int  # of its process; 0: not known
    why: str  # how it ended the last time, or why it cannot begin; empty: nothing is wrong


@dataclass(frozen=True, slots=True)
class Spec:
    """What a child is started as, each time."""

    name: str
    function: Work
    args: tuple[Any, ...]
    mode: Mode
    restart: Restart
    role: str
    ttl: float
    tries: int
    checkpoints: int
    grace: float | None  # seconds; None: its supervisor's
    restart_from_checkpoint: bool


@dataclass(slots=True)
class Group:
    """Children that are restarted together, or not, and whose restarts are counted together.

    failed: called with the error of a child that should be restarted, and cannot be, or not once more.
    """

    strategy: Strategy
    limit: RestartLimit
    failed: "Callable[[BaseException], None]"
    children: "list[Child]" = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # of whoever starts some, or has some end


class Child:
    """A child of a supervisor. Made by `Supervisor.spawn`."""

    def __init__(self, spec: Spec, group: Group, stop: "Callable[[Child], Awaitable[None]]") -> None:
        self.spec = spec
        self.group = group
        self.state = ChildState.STARTING
        self.restarts = 0
        self.run = ""  # the start that it came from
        self.running: Running | None = None
        self.stopping: Running | None = None  # it was asked to end, and has not yet
        self.ending: asyncio.Task[None] | None = None  # which sees to that
        self.presence: Presence | None = None
        self.lapsed = False  # this run's lease ran out
        self.late = False  # this run was not there in time
        self.rival: Presence | None = None  # who has its name, of those that are not to be ended
        self.gone: asyncio.Future[End] | None = None  # of one that was adopted: to be set when its presence goes
        self.end: End | None = None
        self._changed = asyncio.Event()
        self._stop = stop

    def __repr__(self) -> str:
        return f"<comity.agents.Child {self.name}: {self.state}>"

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def status(self) -> ChildStatus:
        """How it is now."""
        pid = self.running.pid if self.running is not None else 0
        why = "" if self.end is None else self.end.why
        if self.rival is not None and self.state is ChildState.STARTING:
            why = f"{self.rival.whereabouts} has the name"
        return ChildStatus(self.name, self.spec.mode, self.state, self.restarts, self.presence, pid, why)

    async def ready(self) -> Presence:
        """Wait until it is there. Raises RuntimeError if it ends for good before."""
        while self.presence is None:
            if self.state.is_final:
                raise RuntimeError(f"{self.name} has ended: {self.status.why or self.state}")
            await self._changed.wait()
        return self.presence

    async def wait(self) -> ChildStatus:
        """Wait until it has ended for good."""
        while not self.state.is_final:
            await self._changed.wait()
        return self.status

    # For whoever supervises it

    def begin(self, run: str) -> None:
        """It is about to be started, or taken over."""
        self.run = run
        self.lapsed = self.late = False
        self.rival = None
        self.presence = None
        self.state = ChildState.STARTING

    def there(self, presence: Presence) -> None:
        """It is seen as an agent."""
        if self.state in (ChildState.STARTING, ChildState.RUNNING):
            self.presence = presence
            self.rival = None
            self.state = ChildState.RUNNING

    def went(self, end: End) -> None:
        """It is not seen any more: the end of one that was taken over."""
        gone, self.gone = self.gone, None
        if gone is not None and not gone.done():
            gone.set_result(end)

    def changed(self) -> None:
        """Tell whoever waits."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def stop(self) -> None:
        """Ask it to end, kill it after the supervisor's grace, and do not restart it."""
        await self._stop(self)


class Roster:
    """The children of a supervisor, in the order in which they were spawned, and whoever watches them."""

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}
        self._watchers: list[tuple[dict[str, None], asyncio.Event]] = []
        self.closed = False

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._children.values()))

    def get(self, name: str) -> Child | None:
        return self._children.get(name)

    def add(self, child: Child) -> None:
        self._children[child.name] = child
        child.group.children.append(child)
        self.changed(child)

    def remove(self, child: Child) -> None:
        self._children.pop(child.name, None)
        child.group.children.remove(child)

    def changed(self, child: Child) -> None:
        """Tell whoever waits and watches."""
        child.changed()
        for changes, wake in self._watchers:
            changes[child.name] = None
            wake.set()

    def close(self) -> None:
        """There will be no more changes."""
        self.closed = True
        for _, wake in self._watchers:
            wake.set()

    async def watch(self) -> AsyncGenerator[ChildStatus]:
        """Each child as it is, and again whenever that has changed. Who is slow gets the newest, not every one."""
        changes: dict[str, None] = dict.fromkeys(self._children)
        wake = asyncio.Event()
        self._watchers.append((changes, wake))
        try:
            while True:
                while changes:
                    name = next(iter(changes))
                    del changes[name]
                    if (child := self._children.get(name)) is not None:
                        yield child.status
                if self.closed:
                    return
                wake.clear()
                await wake.wait()
        finally:
            self._watchers.remove((changes, wake))
