"""Who starts agents, watches over them, and starts them anew when they die."""

import asyncio
import logging
import math
import multiprocessing
import uuid
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Final, Self

from comity.checks import check_client, check_count, check_seconds, check_wait
from comity.cleanup import clean_up
from comity.client import Client
from comity.errors import ComityError
from comity.leases.block import Block
from comity.leases.lease import Lease

from . import layout
from .authors import author_of
from .children import Child, ChildStatus, Group, Mode, Roster, Spec
from .errors import SupervisorExists
from .feeding import Inputs
from .ledger import Ledger
from .mapping import Function, Mapping, forget, work
from .outcome import MapError, Outcome
from .presence import Presence, Taken, take
from .process import Work
from .restarts import Restart, RestartLimit, Strategy
from .runnable import check_function, check_token
from .supervision import Supervision

__all__ = ["Supervisor"]

MAP_ID_LENGTH: Final = 50

log = logging.getLogger("comity.agents")


class Supervisor:
    """Starts agents, and restarts those that die, as supervisors of Erlang/OTP do.

        async with Supervisor(state, "newsroom") as supervisor:
            await supervisor.spawn(write, name="writer-1", mode="process")
            await supervisor.spawn(edit, name="editor", restart=Restart.TRANSIENT)
            await supervisor.wait()

    A child is a function `async def write(agent, *args)` that runs as an agent: as a task of this event loop, or as a
    process. It is dead when its task or process ends, or when its lease does, as that of a process that hangs: which is
    killed then. What it had taken is free for others at once.

    No child outlives the block: those that still run at its end are asked to end, and killed after `grace` seconds.

    What is known of the children is in the store. A supervisor that is made with the name of one that has died, and
    spawns the same children, takes over those that live, and starts the others anew.

    name: as that of an agent; of one supervisor at a time.
    strategy: who is restarted with a child that died.
    max_restarts, within: more restarts than this within so many seconds are too many: all children are stopped, the
        block is cancelled, and RestartLimitExceeded raised. What several children end by within a `ttl`, such as a
        pause of the server, counts as one; a child that ends again counts anew.
    ttl: seconds after which the supervisor is taken for dead if nothing is heard of it; and its children too, unless
        `spawn` says else.
    grace: seconds that a child has to end when it is asked to, and is killed after. A task cannot be killed: it is
        cancelled until it ends.
    wait: seconds to wait for a former supervisor of the name to be gone. SupervisorExists if it is not by then.
    start_timeout: seconds that a child has to be there as an agent: to import what it needs, and to get its name. Else
        it is killed, and has failed.

    If the supervisor's own lease is lost, the block is cancelled too, and LeaseLost raised. Children that are processes
    are left to the later supervisor of the name then, if there is one.
    """

    def __init__(
        self,
        state: Client,
        name: str,
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        max_restarts: int = 5,
        within: float = 30.0,
        ttl: float = 5.0,
        grace: float = 5.0,
        wait: float = 0.0,
        start_timeout: float = 60.0,
    ) -> None:
        check_client(state)
        self.name = layout.check_name("the supervisor's name", name)
        limit = RestartLimit(
            check_count("max_restarts", max_restarts, 0), check_seconds("within", within), together=ttl
        )
        self._block = Block()
        self._group = Group(Strategy(strategy), limit, self._block.fail)
        self._ttl = check_seconds("ttl", ttl)
        self._grace = check_seconds("grace", grace)
        self._wait = check_wait("wait", wait)
        self._start_timeout = check_seconds("start_timeout", start_timeout)
        self.state = state.with_options(author=author_of(state, name))
        self._begun = False
        self._lease: Lease | None = None
        self._supervision: Supervision | None = None

    async def __aenter__(self) -> Self:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise RuntimeError(
                "this process is to be a supervisor's child, and would start the supervisor once more as it imports the"
                ' program: guard what the program does by `if __name__ == "__main__":`'
            )
        if self._begun:
            raise RuntimeError(f"supervisor {self.name} has begun already: make another one")
        self._begun = True
        self._lease = lease = await self._take()
        try:
            ledger = Ledger(self.state, self.name, lease)
            former = await ledger.former()
        except BaseException:
            await clean_up(lease.revoke())
            raise
        self._block.begin(lease)
        self._supervision = Supervision(
            self.state,
            self.name,
            lease,
            former,
            ledger,
            grace=self._grace,
            start_timeout=self._start_timeout,
            failed=self._block.fail,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._lease is not None
        supervision = self._supervising()
        self._block.end()
        closing = asyncio.create_task(self._close(supervision, self._lease))
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as again:  # whoever cancels this does not wait for the grace to pass
                cancelled = again
                supervision.kill()
        closing.result()
        if cancelled is not None:
            raise cancelled
        self._block.check(error)

    async def _take(self) -> Lease:
        record, key = Presence.here(self.name).record(), layout.supervisor(self.name)
        try:
            return await take(
                self.state, key, record, ttl=self._ttl, wait=self._wait, message=f"supervisor {self.name} begins"
            )
        except Taken as taken:
            raise SupervisorExists(
                f"a supervisor of the name {self.name} lives",
                reason="SUPERVISOR_EXISTS",
                metadata={"name": self.name, "incarnation": str(taken.entry.lease_id)},
            ) from None

    # Children

    async def spawn(
        self,
        function: Work,
        *args: Any,
        name: str | None = None,
        mode: Mode = "task",
        restart: Restart = Restart.PERMANENT,
        role: str = "",
        ttl: float | None = None,
        tries: int = 5,
        checkpoints: int = 10,
        restart_from_checkpoint: bool = False,
        grace: float | None = None,
    ) -> Child:
        """Start a child: an agent that runs `await function(agent, *args)`.

        Where a former supervisor of this name had a child of this name that still lives, that one is taken over.

        name: as of an agent; the function's, with a number, unless given.
        mode: "task": in this event loop. "process": in a new Python, which imports the function: so it must be one of a
            module (not a lambda, nor in a function), its arguments must be picklable, and a program's main module must
            guard its start by `if __name__ == "__main__":`. SIGTERM cancels it.
        restart: whether it is restarted when it ended.
        role, ttl, tries, checkpoints: of the agent.
        restart_from_checkpoint: whether its private state is made what it was at its last checkpoint, if it has one,
            whenever it is started after it died. Else it is what it was when it died: every write is whole or absent.
        grace: seconds that it has to end, unless they are the supervisor's. A child that is a supervisor itself needs
            more than its own children have, or `math.inf`: if it is killed, those that are processes live on.

        Raises ValueError if a child of this name is there already, and for a function that a process cannot import;
        TypeError for what is no async function, and for arguments that cannot be sent to a process;
        InvalidArgument for a ttl that the server does not grant.
        """
        return await self._supervising().spawn(
            self._spec(
                function,
                args,
                name=self._free_name(function) if name is None else name,
                mode=mode,
                restart=Restart(restart),
                role=role,
                ttl=ttl,
                tries=check_count("tries", tries),
                checkpoints=check_count("checkpoints", checkpoints),
                restart_from_checkpoint=restart_from_checkpoint,
                grace=grace,
            ),
            self._group,
        )

    def children(self) -> list[ChildStatus]:
        """Every child as it is now, in the order in which they were spawned; also those that have ended."""
        return [child.status for child in self._children()]

    def child(self, name: str) -> Child:
        """The child of this name. Raises KeyError."""
        child = self._children().get(name)
        if child is None:
            raise KeyError(name)
        return child

    def watch(self) -> AsyncGenerator[ChildStatus]:
        """Each child as it is now, and again whenever that has changed: until the supervisor ends. Who is slow gets the
        newest of each, not every one."""
        return self._children().watch()

    async def wait(self) -> list[ChildStatus]:
        """Wait until every child has ended for good, and return how."""
        while running := [child for child in self._children() if not child.state.is_final]:
            await running[0].wait()
        return self.children()

    # Maps

    def map(
        self,
        function: Function,
        inputs: Inputs,
        *,
        concurrency: int = 4,
        mode: Mode = "task",
        retries: int = 2,
        id: str | None = None,
        role: str = "",
        ttl: float | None = None,
    ) -> AsyncGenerator[Outcome]:
        """Do `await function(agent, input)` for each input, by several agents, and give the outcomes as they come:

            async for outcome in supervisor.map(summarise, pages, concurrency=8, mode="process"):
                print(outcome.index, outcome.value, outcome.error)

        Inputs and outcomes, which are what JSON can hold, are in the store: what an agent had when it died is done by
        another one, none is lost, and none is done twice. The agents are children of the supervisor, and are restarted
        whenever they die, for as long as something comes of it; that does not count for `max_restarts`.

        inputs: any iterable, async or not. It may be endless: ten for each agent at most are in the store of which the
            outcome was not given yet, so that who is slow with the outcomes is given fewer.
        concurrency: how many agents there are; each has one input at a time.
        mode, role, ttl: of the agents, as of `spawn`.
        retries: how often an input is tried again after the function raised, or its agent died. Then the outcome has an
            `error`.
        id: as a name, of up to 50 characters. A later supervisor that maps the same inputs under the same id, as after
            a crash, goes on where this one was, and gives all outcomes, also those from before. What there is in the
            store of it stays until `forget_map`; without an id it goes with the end of the iteration.

        Raises MapDiffers if the id is that of a map of other inputs; RestartLimitExceeded if agents die again and
        again, and nothing comes of it. Leaving the iteration early ends the agents, soon; at once by
        `contextlib.aclosing`.
        """
        check_count("concurrency", concurrency)
        tries = check_count("retries", retries, 0) + 1
        keep = id is not None
        id = f"map-{uuid.uuid4().hex[:12]}" if id is None else layout.check_name("the id", id)
        if len(id) > MAP_ID_LENGTH:
            raise ValueError(f"the id of a map has up to {MAP_ID_LENGTH} characters, not {len(id)}")
        check_function(function, mode)
        specs = [
            self._spec(
                work,
                (id, function, tries),
                name=f"{id}.{number}",
                mode=mode,
                restart=Restart.TRANSIENT,
                role=role,
                ttl=ttl,
            )
            for number in range(concurrency)
        ]
        supervision = self._supervising()
        return Mapping(self.state, id, tries, supervision.lease).run(supervision, specs, inputs, keep=keep)

    async def gather(
        self, function: Function, inputs: Inputs, *, return_exceptions: bool = False, **options: Any
    ) -> list[Any]:
        """What the function makes of each input, in the order of the inputs, once all are done.

        return_exceptions: have an ItemFailed in the place of each that failed.
        options: as of `map`.

        Raises MapError, which has all outcomes, if some have failed, unless `return_exceptions`.
        """
        outcomes = sorted([each async for each in self.map(function, inputs, **options)], key=lambda each: each.index)
        errors = [each.error for each in outcomes if each.error is not None]
        if errors and not return_exceptions:
            first = f"{errors[0].reason}: {errors[0]}"
            raise MapError(
                f"{len(errors)} of {len(outcomes)} inputs have failed, the first by {first}", results=outcomes
            )
        return [each.value if each.error is None else each.error for each in outcomes]

    async def forget_map(self, id: str) -> None:
        """Delete all that there is in the store of a map that was given an id."""
        await forget(self.state, layout.check_name("the id", id))

    def _spec(
        self,
        function: Work,
        args: tuple[Any, ...],
        *,
        name: str,
        mode: Mode,
        restart: Restart,
        role: str,
        ttl: float | None,
        tries: int = 5,
        checkpoints: int = 10,
        restart_from_checkpoint: bool = False,
        grace: float | None = None,
    ) -> Spec:
        check_function(function, mode, args)
        if mode == "process":
            check_token(self.state._access.token)
        layout.check_name("the child's name", name)
        if role:
            layout.check_name("role", role)
        if grace is not None and grace != math.inf:
            check_seconds("grace", grace)
        ttl = self._ttl if ttl is None else check_seconds("ttl", ttl)
        return Spec(name, function, args, mode, restart, role, ttl, tries, checkpoints, grace, restart_from_checkpoint)

    def _free_name(self, function: Work) -> str:
        base = getattr(function, "__name__", "agent").strip("_")[:50] or "agent"
        taken = {child.name for child in self._children()}
        return next(name for number in range(1, len(taken) + 2) if (name := f"{base}-{number}") not in taken)

    def _children(self) -> Roster:
        return self._supervising().roster

    def _supervising(self) -> Supervision:
        if self._supervision is None:
            raise RuntimeError(f"supervisor {self.name} has not begun yet: use it inside of `async with`")
        return self._supervision

    # The end

    async def _close(self, supervision: Supervision, lease: Lease) -> None:
        try:
            await supervision.close()
        except (ComityError, RuntimeError):  # the latter if the client was closed
            log.warning("supervisor %s has ended, and left something behind", self.name, exc_info=True)
        await supervision.end()
        await clean_up(lease.revoke(message=f"supervisor {self.name} ends"))
