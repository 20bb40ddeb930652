"""An agent: a name that one holds at a time, what it says of itself, what it keeps, and what it is sent."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, overload

from comity.arguments import expect
from comity.checks import check_client, check_count, check_seconds, check_wait, wait_of
from comity.cleanup import clean_up
from comity.client import Client
from comity.errors import LeaseLost
from comity.leases.block import Block
from comity.leases.holding import Holding
from comity.leases.lease import Lease
from comity.model import Checkpoint, RestoreResult
from comity.operations import Key, Put
from comity.transaction import Transaction

from . import layout
from .authors import author_of
from .desk import Desk
from .errors import AgentExists
from .handoff import Handoff
from .inbox import Inbox
from .layout import Role
from .marks import Marks
from .memory import Memory
from .message import Message
from .presence import UNSAID, Presence, Taken, Unsaid, reported, take
from .text import text_of

__all__ = ["Agent"]

T = TypeVar("T")

STATUS_LENGTH = 200
LAST_WORDS_SECONDS: Final = 1.0  # that the report of an error may delay the end of the lease


class Agent(Holding):
    """One who takes part, under a name that nobody else has meanwhile.

        async with Agent(state, "writer-1", role="writer") as agent:
            await agent.report("drafting", progress=0.4)
            await agent.memory.put("draft", {...})
            async with agent.receive() as message: ...
            handoff = await agent.handoff(Role("editor"), {"draft": ...})

    It is there for as long as the block runs: by a lease, which ends `ttl` seconds after its process was killed or cut
    off. If the lease is lost while the block runs, the block is cancelled, and LeaseLost raised. All that it writes by
    its own methods, or with `guard=agent.guard`, is refused from then on (LeaseLost).

    state: the namespace. `agent.state` is a client for the same, which writes in the agent's name.
    name: 1 to 63 of A-Z a-z 0-9 . _ - ; the first a letter or digit.
    role: the same, or empty. It is also sent what is for somebody of this role.
    ttl: seconds, from 1 to 24 h by default, after which it is taken for dead if nothing is heard of it.
    wait: seconds to wait for a former agent of this name to be gone.
    tries: how often something that it is sent is taken, by whomever, before it becomes a dead letter.
    checkpoints: how many of its checkpoints are kept.
    supervisor, run: whose child it is; set by `Supervisor`.

    Raises AgentExists, as the block begins, if an agent of this name lives.
    """

    def __init__(
        self,
        state: Client,
        name: str,
        *,
        role: str = "",
        ttl: float = 5.0,
        wait: float = 0.0,
        tries: int = 5,
        checkpoints: int = 10,
        supervisor: str = "",
        run: str = "",
    ) -> None:
        check_client(state)
        layout.check_name("the agent's name", name)
        if role:
            layout.check_name("role", role)
        self.name = name
        self.role = role
        self.ttl = check_seconds("ttl", ttl)
        self.state = state.with_options(author=author_of(state, name))
        self.memory = Memory(self.state, layout.memory(name), self._held)
        self._wait = check_wait("wait", wait)
        self._marks = Marks(self.state, name, self.memory.prefix, check_count("checkpoints", checkpoints), self._held)
        self._presence = Presence.here(name, role=role, supervisor=supervisor, run=run)
        self._reporting = asyncio.Lock()
        self._lease: Lease | None = None
        self._block = Block()
        self._inbox = Inbox(self.state, name, role, check_count("tries", tries), self._held)
        self._desk = Desk(self.state, name, self._held)

    # Being there

    async def __aenter__(self) -> Self:
        if self._lease is not None:
            raise RuntimeError(f"{self.name} has begun already: make another Agent")
        record, key = self._presence.record(), layout.presence(self.name)
        try:
            self._lease = await take(
                self.state, key, record, ttl=self.ttl, wait=self._wait, message=f"{self.name} joins"
            )
        except Taken as taken:
            there = Presence.of(taken.entry)
            raise AgentExists(
                f"an agent of the name {self.name} lives: process {there.pid} on {there.host or 'an unknown host'}",
                reason="AGENT_EXISTS",
                metadata={"name": self.name, "incarnation": str(there.incarnation)},
            ) from None
        self._block.begin(self._lease)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._lease is not None
        try:
            self._block.end()
            self._block.check(error)
            if error is None:
                self._lease.check()
        finally:
            await clean_up(self._leave(self._lease, error))

    @property
    def lease(self) -> Lease:
        """What it lives by. RuntimeError before the block begins."""
        return self._held()

    @property
    def fence(self) -> int:
        """Its incarnation: greater than that of every agent that had its name before. For what is outside of Comity."""
        return self._held().fence

    @property
    def presence(self) -> Presence:
        """What it last said of itself."""
        return self._presence

    async def report(
        self,
        status: str | None = None,
        *,
        progress: float | Literal[Unsaid.UNSAID] | None = UNSAID,
        detail: object = UNSAID,
    ) -> None:
        """Say how far it is: for those who watch, such as a supervisor. What is left out stays as it was.

        status: a word or two, up to 200 characters; None: as it was.
        progress: from 0 to 1; None: there is none to tell.
        detail: what JSON can hold; None: there is none.
        """
        if status is not None:
            expect("status", str, status)
            if not 0 < len(status) <= STATUS_LENGTH:
                raise ValueError(f"status has 1 to {STATUS_LENGTH} characters, not {len(status)}")
        if progress is not UNSAID and progress is not None:
            if isinstance(progress, bool) or not isinstance(progress, (int, float)):
                raise TypeError(f"progress must be a number, not {type(progress).__name__}")
            if not 0 <= progress <= 1:
                raise ValueError(f"progress is a number from 0 to 1, not {progress!r}")
        lease = self._held()
        said = {"status": UNSAID if status is None else status, "progress": progress, "detail": detail}
        async with self._reporting:
            presence = reported(self._presence, **said)
            revision = await self._put(presence, lease)
            self._presence = reported(presence, incarnation=lease.id, revision=revision)

    # State

    @overload
    async def transact(self, function: Callable[[Transaction], Awaitable[T]], *, message: str = "") -> T: ...

    @overload
    async def transact(self, function: Callable[[Transaction], T], *, message: str = "") -> T: ...

    async def transact(self, function: Callable[[Transaction], Any], *, message: str = "") -> Any:
        """Change several keys of the namespace at once, or none of them, if the agent still lives.

        `agent.memory.within(tx)` is the agent's private state in it. All else is as of `Client.transact`.
        """
        return await self.state.transact(function, message=message, guard=self._held())

    async def checkpoint(self, label: str = "checkpoint", *, message: str = "") -> Checkpoint:
        """Name the state as it is now, so that it can be returned to. Costs the same however much there is.

        label: as a name. It may be given again: the newest counts.

        The newest ten are kept, or as many as the agent was made with.
        """
        return await self._marks.make(label, message)

    async def last_checkpoint(self, label: str | None = None) -> Checkpoint | None:
        """The newest of its checkpoints, of all or of those with a label; also one of an earlier incarnation. None if
        there is none."""
        return await self._marks.last(label)

    def checkpoints(self, label: str | None = None) -> AsyncIterator[Checkpoint]:
        """Its checkpoints, of all labels or of one, in no order."""
        return self._marks.all(label)

    async def restore(self, ref: Checkpoint | int | str | None = None, *, message: str = "") -> RestoreResult:
        """Make its private state what it was, in one commit; nothing else is changed.

        ref: a checkpoint, a revision, or a label of the agent's, of which the newest counts; None: its last checkpoint.

        Raises NotFound if there is none; and what `Client.restore` raises.
        """
        return await self._marks.restore(ref, message or f"{self.name} returns to a checkpoint")

    # What it is sent, and sends

    async def send(
        self,
        to: str | Role,
        body: object,
        *,
        priority: int = 0,
        also: Callable[[Transaction], object] | None = None,
        message: str = "",
    ) -> None:
        """Send something to an agent, or to whoever of a role is there first. It stays until somebody has taken it and
        done it, also if nobody of that name is there yet.

        to: the name of an agent, or a `Role`.
        body: what JSON can hold, up to the size of a value.
        priority: from -999 to 999; higher ones are taken first.
        also: as the function of `transact`: what it writes is applied along with the sending, or neither is.
        message: why, for the history.

        Raises LeaseLost if the agent does not live any more.
        """
        await self._desk.send(to, body, priority=priority, also=also, message=message)

    async def handoff(
        self,
        to: str | Role,
        context: object,
        *,
        id: str | None = None,
        priority: int = 0,
        also: Callable[[Transaction], object] | None = None,
        message: str = "",
    ) -> Handoff:
        """Hand work over, with all that belongs to it. Exactly one receiver does it: whoever takes it holds it by its
        lease, and if that one dies, another one takes it. Once it is done, `handoff.result()` tells of it.

        context: what JSON can hold, up to the size of a value: what is larger belongs under keys of its own, of which
            the context has the names.
        id: as a name; one that the agent, in whatever incarnation, gives to this handoff alone. If it was sent already,
            by an incarnation that has died since, it is not sent again. Its result is kept until `Handoff.forget`.

        All else is as of `send`. Raises InvalidArgument for a context that is too large.
        """
        return await self._desk.handoff(to, context, id=id, priority=priority, also=also, message=message)

    def handoffs(self) -> AsyncIterator[Handoff]:
        """What the agent, in whatever incarnation, has handed off and not forgotten: to wait for it after a crash."""
        return self._desk.all()

    def receive(self, timeout: float | None = None) -> AbstractAsyncContextManager[Message]:
        """A block that has a message, which is done when the block ends, and given back if it raises.

            async with agent.receive() as message:
                if isinstance(message, HandoffMessage):
                    await message.done(await work(message.context))

        What the agent is sent itself comes before what its role is. What is given back five times (or as often as the
        agent was made with) becomes a dead letter.

        timeout: seconds to wait for one at most: TimeoutError. None: for ever.
        """
        return self._inbox.receive(wait_of(timeout))

    def inbox(self) -> AsyncGenerator[Message]:
        """What the agent is sent, without end: `async for message in agent.inbox()`.

        A message is done when the next one is asked for, or when the loop says so: `await message.ack()`. One with
        which the loop is left, by `break` or by an error, is given back, soon; at once by `contextlib.aclosing`.
        """
        return self._inbox.messages()

    # As what guards a write: `state.put(…, guard=agent)`

    @property
    def namespace(self) -> str:
        """That it is in."""
        return self.state.namespace

    async def _put(self, presence: Presence, lease: Lease) -> int:
        """Have the presence say so, if it is still the agent's own. The revision of that. Raises LeaseLost."""
        key = layout.presence(self.name)
        put = await self.state.transact(
            conditions=[Key(key).lease_id == lease.id],
            then=[Put(key, presence.record(), lease=lease)],
            guard=lease,
        )
        if put.committed:
            return put.revision
        # Somebody has deleted or restored it: another agent may have the name. The lease lives on by its other keys,
        # such as what the agent has taken.
        await clean_up(self.state.revoke_lease(lease.id, message=f"{self.name} has lost its presence"))
        raise LeaseLost(
            f"{self.name} is there no longer: {key} was deleted, or written by somebody else",
            reason="LEASE_LOST",
            metadata={"lease_id": str(lease.id), "namespace": lease.namespace},
        )

    async def _leave(self, lease: Lease, error: BaseException | None) -> None:
        """End the lease, whatever becomes of the last report."""
        # A supervisor tells it by this from one that has returned, also if it was not the one that has started it.
        is_stopped = isinstance(error, asyncio.CancelledError) and bool(self._presence.run)
        if lease.alive and error is not None and (is_stopped or isinstance(error, Exception)):
            with contextlib.suppress(Exception):
                async with asyncio.timeout(LAST_WORDS_SECONDS):
                    if is_stopped:
                        await self.report("cancelled")
                    else:
                        await self.report("failed", detail=f"{type(error).__name__}: {text_of(error)}"[:STATUS_LENGTH])
        await lease.revoke(message=f"{self.name} leaves")

    def _held(self) -> Lease:
        if self._lease is None:
            raise RuntimeError(f"{self.name} is not there yet: use it inside of `async with`")
        return self._lease
