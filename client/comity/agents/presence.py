"""Who is there: a key for each agent, which lives by the agent's lease."""

import asyncio
import datetime
import enum
import os
import socket
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from comity.checks import check_client
from comity.cleanup import clean_up
from comity.client import Client
from comity.errors import Conflict, DecodeError
from comity.leases.lease import Lease
from comity.leases.living import Living
from comity.model import Entry, Event, EventCause, PutResult, Resync

from . import layout
from .identity import identity

__all__ = [
    "UNSAID",
    "Directory",
    "Presence",
    "PresenceChange",
    "PresenceEvent",
    "Taken",
    "Unsaid",
    "reported",
    "take",
    "until_gone",
]

T = TypeVar("T")


class Unsaid(enum.Enum):
    """Stands for what is left out of a report, where None can be said."""

    UNSAID = "unsaid"


UNSAID: Final = Unsaid.UNSAID
EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)


@dataclass(frozen=True, slots=True)
class Presence:
    """An agent that is there. What another program has written wrongly, or left out, is empty."""

    name: str
    role: str  # empty: none
    status: str  # a word or two: "idle", "searching"; "failed" is its last where it ended by an exception
    progress: float | None  # 0 to 1; None: not said
    detail: Any  # what it says of itself beyond that, as JSON
    started: datetime.datetime  # by the agent's clock, for people
    host: str  # for people
    pid: int  # of its process on that host; 0: not said
    process: str  # tells its process from a later one of that pid; empty: cannot be told
    supervisor: str  # whose child it is; empty: nobody's
    run: str  # which start of its supervisor's it came from; empty: none
    incarnation: int  # the id of its lease, which is its fence: a later agent of the same name has a greater one
    revision: int  # of its last report
    crash: str = ""  # why its process died, as its supervisor says before it ends its lease; empty: it did not

    @property
    def whereabouts(self) -> str:
        """Which agent it is, for people."""
        whose = f" of supervisor {self.supervisor}" if self.supervisor else ""
        return f"an agent{whose} in process {self.pid} on {self.host or 'an unknown host'}"

    def record(self) -> dict[str, Any]:
        """What is stored of it."""
        died = {"crash": self.crash} if self.crash else {}
        return died | {
            "role": self.role,
            "status": self.status,
            "progress": self.progress,
            "detail": self.detail,
            "started": self.started.isoformat(timespec="milliseconds"),
            "host": self.host,
            "pid": self.pid,
            "process": self.process,
            "supervisor": self.supervisor,
            "run": self.run,
        }

    @classmethod
    def here(cls, name: str, *, role: str = "", supervisor: str = "", run: str = "") -> "Presence":
        """An agent of this process that is about to be there."""
        now = datetime.datetime.now(datetime.UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        pid = os.getpid()
        place = socket.gethostname(), pid, identity(pid)
        return cls(name, role, "idle", None, None, now, *place, supervisor, run, incarnation=0, revision=0)

    @classmethod
    def of(cls, entry: Entry) -> "Presence":
        """What an entry under `agents/` says."""
        record = _record(entry)
        progress = record.get("progress")
        return cls(
            name=entry.key.removeprefix(layout.AGENTS),
            role=_field(record, "role", str) or "",
            status=_field(record, "status", str) or "",
            progress=float(progress) if isinstance(progress, (int, float)) else None,
            detail=record.get("detail"),
            started=_time(record.get("started")),
            host=_field(record, "host", str) or "",
            pid=_field(record, "pid", int) or 0,
            process=_field(record, "process", str) or "",
            supervisor=_field(record, "supervisor", str) or "",
            run=_field(record, "run", str) or "",
            incarnation=entry.lease_id,
            revision=entry.mod_revision,
            crash=_field(record, "crash", str) or "",
        )


class PresenceChange(enum.Enum):
    """What happened to an agent."""

    JOINED = "joined"  # it is there now, or was when the watch began
    REPORTED = "reported"  # it said something else of itself
    LEFT = "left"  # it ended its lease, or its supervisor did, since it was to end
    CRASHED = "crashed"  # its process died, as its supervisor says; its lease ran out; or it went, and nobody saw how


@dataclass(frozen=True, slots=True)
class PresenceEvent:
    """A change of one agent. Of one that is gone, `presence` is its last."""

    change: PresenceChange
    presence: Presence
    revision: int  # that made the change

    @property
    def is_end(self) -> bool:
        return self.change in (PresenceChange.LEFT, PresenceChange.CRASHED)


class Directory:
    """The agents of a namespace.

    async for event in Directory(state).watch(): print(event.change, event.presence.name)
    """

    def __init__(self, state: Client) -> None:
        self._state = check_client(state)
        self._living = Living(state)

    async def get(self, name: str) -> Presence | None:
        """The agent of this name; None if it is not there."""
        entry = await self._state.get(layout.presence(layout.check_name("the agent", name)))
        living = await self._living.among([] if entry is None else [entry])
        return Presence.of(living[0]) if living else None

    async def list(self) -> "list[Presence]":
        """The agents that are there, in the order of their names."""
        return [Presence.of(entry) for entry in await self._living.among(await self._state.list(layout.AGENTS).all())]

    async def watch(self) -> AsyncGenerator[PresenceEvent]:
        """The agents that are there, each as one that joined, and then each change, in order and without gaps.

        Raises what `Client.watch` raises.
        """
        known: dict[str, Presence] = {}
        async with self._state.watch(layout.AGENTS, initial=True) as watch:
            async for item in watch:
                if isinstance(item, Resync):
                    found = [Presence.of(entry) for entry in await self._living.among(item.entries)]
                    events = _moved(known, found, item.revision)
                elif item.is_put and await self._living.among([item.entry], anew=False):
                    events = _written(known, Presence.of(item.entry), item.revision)
                else:
                    events = _gone(known, item)
                for event in events:
                    yield event


def _gone(known: dict[str, Presence], event: Event) -> list[PresenceEvent]:
    before = known.pop(event.key.removeprefix(layout.AGENTS), None)
    if before is None:
        return []
    left = event.is_delete and event.cause is EventCause.CLIENT and not before.crash
    return [PresenceEvent(PresenceChange.LEFT if left else PresenceChange.CRASHED, before, event.revision)]


def _written(known: dict[str, Presence], now: Presence, revision: int) -> list[PresenceEvent]:
    before = known.get(now.name)
    known[now.name] = now
    if before is not None and before.incarnation == now.incarnation:
        return [] if before.revision == now.revision else [PresenceEvent(PresenceChange.REPORTED, now, revision)]
    gone = [] if before is None else [PresenceEvent(PresenceChange.CRASHED, before, revision)]
    return [*gone, PresenceEvent(PresenceChange.JOINED, now, revision)]


def _moved(known: dict[str, Presence], present: list[Presence], revision: int) -> list[PresenceEvent]:
    gone = known.keys() - {one.name for one in present}
    events = [PresenceEvent(PresenceChange.CRASHED, known.pop(name), revision) for name in sorted(gone)]
    for one in present:
        events += _written(known, one, revision)
    return events


class Taken(Exception):
    """A key that lives by a lease is there already."""

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self.entry = entry


async def take(state: Client, key: str, record: object, *, ttl: float, wait: float, message: str) -> Lease:
    """Create a key that lives by a lease of its own, and keep it alive.

    wait: seconds to wait for one that is there to be gone. Raises Taken if it is not by then.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait
    living = Living(state)
    found: Entry | None = None
    while True:
        writing = asyncio.create_task(
            state.put(key, record, ttl=ttl, if_revision=found.mod_revision if found else 0, message=message)
        )
        try:
            return await state.keep_alive((await asyncio.shield(writing)).lease_id, ttl=ttl)
        except Conflict:
            found = await state.get(key)
            if found is not None and await living.among([found]):
                if not await until_gone(state, key, deadline - clock()):
                    raise Taken(found) from None
                found = None
        except BaseException:
            await clean_up(_give_up(state, writing))
            raise


async def _give_up(state: Client, writing: "asyncio.Task[PutResult]") -> None:
    """End what may have been written. Whoever was cancelled meanwhile does not know whether it was."""
    written = await writing
    await state.revoke_lease(written.lease_id)


async def until_gone(state: Client, key: str, seconds: float) -> bool:
    """Wait until there is no such key, or it lives by no lease, as one that a restore has written. False if there still
    is, after so many seconds."""
    if seconds <= 0:
        return False
    try:
        async with asyncio.timeout(seconds), state.watch(key=key, initial=True) as watch:
            async for item in watch:
                entries = item.entries if isinstance(item, Resync) else [item.entry]  # of a delete it has no lease
                if not any(entry.lease_id for entry in entries):
                    return True
    except TimeoutError:
        return False
    return False


def reported(presence: Presence, **changes: Any) -> Presence:
    """The presence with these changes; what is UNSAID stays as it was."""
    return replace(presence, **{name: value for name, value in changes.items() if value is not UNSAID})


def _record(entry: Entry) -> Mapping[str, Any]:
    try:
        value = entry.value
    except DecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _field(record: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    value = record.get(name)
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _time(text: object) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text) if isinstance(text, str) else EPOCH
    except ValueError:
        return EPOCH
