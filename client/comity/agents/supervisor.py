"""Who starts agents, watches over them, and starts them anew when they die."""

import asyncio
import contextlib
import functools
import logging
import math
import uuid
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Final, Self

from comity.client import Client
from comity.errors import ComityError, LeaseLost, LeaseNotFound
from comity.lease import Lease
from comity.recipes.ending import clean_up
from comity.recipes.names import check_count, check_seconds

from . import layout
from .block import Block
from .children import Child, ChildState, ChildStatus, Group, Mode, Roster, Spec
from .errors import MapError, RestartLimitExceeded, SupervisorExists
from .mapping import Function, Inputs, Mapping, Outcome, forget, work
from .presence import Directory, Presence, PresenceChange, PresenceEvent, Taken, take, until_gone
from .process import Start, Work, check_function, run_agent
from .restarts import Restart, RestartLimit, Strategy, affected
from .running import Adopted, End, ProcessRun, TaskRun

__all__ = ["Supervisor"]

MAP_ID_LENGTH: Final = 50
MAP_RESTARTS: Final = 5  # of agents of a map, beyond those that inputs account for with which they die
TAKE_OVER_SECONDS: Final = 5.0  # beyond the ttl of an agent that died, for its name to be free

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
        block is cancelled, and RestartLimitExceeded raised.
    ttl: seconds after which the supervisor is taken for dead if nothing is heard of it; and its children too, unless
        `spawn` says else.
    grace: seconds that a child has to end when it is asked to. A task cannot be killed: it is cancelled until it ends.
    wait: seconds to wait for a former supervisor of the name to be gone. SupervisorExists if it is not by then.
    start_timeout: seconds that a process has to be there as an agent. Else it is killed, and counts as dead.

    If the supervisor's own lease is lost, the block is cancelled too, and LeaseLost raised.
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
        self.name = layout.check_name("the supervisor's name", name)
        if not 0 <= wait < math.inf:
            raise ValueError(f"wait is a number of seconds from 0, not {wait!r}")
        limit = RestartLimit(check_count("max_restarts", max_restarts, 0), check_seconds("within", within))
        self._group = Group(Strategy(strategy), limit, self._exceeded)
        self._ttl = ttl
        self._grace = check_seconds("grace", grace)
        self._wait = wait
        self._start_timeout = check_seconds("start_timeout", start_timeout)
        self.state = state.with_options(author=name)
        self._directory = Directory(self.state)
        self._roster = Roster()
        self._block = Block()
        self._turn = asyncio.Lock()  # of whoever starts and stops children
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._lease: Lease | None = None
        self._former: dict[str, dict[str, Any]] = {}  # what a former supervisor knew of its children

    async def __aenter__(self) -> Self:
        if self._lease is not None:
            raise RuntimeError(f"supervisor {self.name} has begun already: make another one")
        record = Presence.here(self.name).record()
        key = layout.supervisor(self.name)
        try:
            self._lease = await take(
                self.state, key, record, ttl=self._ttl, wait=self._wait, message=f"supervisor {self.name} begins"
            )
        except Taken as taken:
            raise SupervisorExists(
                f"a supervisor of the name {self.name} lives",
                reason="SUPERVISOR_EXISTS",
                metadata={"name": self.name, "incarnation": str(taken.entry.lease_id)},
            ) from None
        try:
            prefix = layout.children(self.name)
            async for entry in self.state.list(prefix):
                self._former[entry.key.removeprefix(prefix)] = entry.value
        except BaseException:
            await clean_up(self._lease.revoke())
            raise
        self._block.begin()
        self._lease.on_lost(self._lost)
        self._begin(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._block.end()
        closing = asyncio.create_task(self._close())
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as again:  # whoever is in a hurry does not wait for the grace to pass
                cancelled = again
                for child in self._roster:
                    if child.running is not None:
                        child.running.kill()
        closing.result()
        if cancelled is not None:
            raise cancelled
        self._block.check(error)

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
        restart_from_checkpoint: bool = False,
    ) -> Child:
        """Start a child: an agent that runs `await function(agent, *args)`.

        Where a former supervisor of this name had a child of this name that still lives, that one is taken over.

        name: as of an agent; the function's, with a number, unless given.
        mode: "task": in this event loop. "process": in a new Python, which imports the function: so it must be one of a
            module (not a lambda, nor in a function), its arguments must be picklable, and a program's main module must
            guard its start by `if __name__ == "__main__":`. SIGTERM cancels it.
        restart: whether it is restarted when it ended.
        role, ttl: of the agent.
        restart_from_checkpoint: whether its private state is made what it was at its last checkpoint, if it has one,
            whenever it is started after it died. Else it is what it was when it died: every write is whole or absent.

        Raises ValueError if a child of this name is there already, and for a function that a process cannot import.
        """
        return await self._spawn(
            self._spec(
                function,
                args,
                name=self._free_name(function) if name is None else name,
                mode=mode,
                restart=Restart(restart),
                role=role,
                ttl=ttl,
                restart_from_checkpoint=restart_from_checkpoint,
            ),
            self._group,
        )

    def children(self) -> list[ChildStatus]:
        """Every child as it is now, in the order in which they were spawned; also those that have ended."""
        return [child.status for child in self._roster]

    def child(self, name: str) -> Child:
        """The child of this name. Raises KeyError."""
        child = self._roster.get(name)
        if child is None:
            raise KeyError(name)
        return child

    def watch(self) -> AsyncGenerator[ChildStatus]:
        """Each child as it is now, and again whenever that has changed: until the supervisor ends. Who is slow gets the
        newest of each, not every one."""
        return self._roster.watch()

    async def wait(self) -> list[ChildStatus]:
        """Wait until every child has ended for good, and return how."""
        while running := [child for child in self._roster if not child.state.is_final]:
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

        inputs: any iterable, async or not.
        concurrency: how many agents there are; each has one input at a time.
        mode, role, ttl: of the agents, as of `spawn`.
        retries: how often an input is tried again after the function raised, or its agent died. Then the outcome has an
            `error`.
        id: as a name, of up to 50 characters. A later supervisor that maps the same inputs under the same id, as after
            a crash, goes on where this one was, and gives all outcomes, also those from before. What there is in the
            store of it stays until `forget_map`; without an id it goes with the end of the iteration.

        Raises RestartLimitExceeded if agents die again and again, and nothing comes of it. Leaving the iteration early
        ends the agents, soon; at once by `contextlib.aclosing`.
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
                restart_from_checkpoint=False,
            )
            for number in range(concurrency)
        ]
        return self._map(id, inputs, tries, specs, keep=keep)

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

    async def _map(
        self, id: str, inputs: Inputs, tries: int, specs: list[Spec], *, keep: bool
    ) -> AsyncGenerator[Outcome]:
        limit = RestartLimit(len(specs) * tries + MAP_RESTARTS, math.inf)
        stuck: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def exceeded(child: Child, end: End) -> None:
            if not stuck.done():
                stuck.set_exception(self._too_many(child, end, limit))

        group = Group(Strategy.ONE_FOR_ONE, limit, exceeded)
        mapping = Mapping(self.state, id, tries, self._held(), limit.reset)
        outcomes = mapping.outcomes()
        waits: set[asyncio.Future[Any]] = {stuck}
        try:
            for spec in specs:
                await self._spawn(spec, group)
            waits |= {asyncio.create_task(mapping.feed(inputs)), asyncio.create_task(mapping.bury())}
            while True:
                following = asyncio.ensure_future(anext(outcomes, None))
                waits.add(following)
                while not following.done():
                    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    for one in done - {following}:
                        one.result()
                    waits -= done
                if (outcome := following.result()) is None:
                    break
                yield outcome
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            await outcomes.aclose()
            await clean_up(self._dismiss(group))
            if not keep:
                await clean_up(forget(self.state, id))

    async def _dismiss(self, group: Group) -> None:
        """End the children of a group, and forget them."""
        async with self._turn:
            await self._stop_group(group)
            for child in list(group.children):
                self._roster.remove(child)
                if not self._closing:
                    await self.state.delete(layout.child(self.name, child.name), guard=self._held())

    # Starting and stopping, in turn

    def _spec(self, function: Work, args: tuple[Any, ...], *, name: str, mode: Mode, **more: Any) -> Spec:
        check_function(function, mode)
        ttl = more.pop("ttl", None)
        layout.check_name("the child's name", name)
        if more.get("role"):
            layout.check_name("role", more["role"])
        return Spec(name, function, args, mode, ttl=self._ttl if ttl is None else ttl, **more)

    def _free_name(self, function: Work) -> str:
        base = getattr(function, "__name__", "agent").strip("_")[:50] or "agent"
        taken = {child.name for child in self._roster}
        return next(name for number in range(1, len(taken) + 2) if (name := f"{base}-{number}") not in taken)

    async def _spawn(self, spec: Spec, group: Group) -> Child:
        lease = self._held()
        child = Child(spec, group, self._stop_child)
        async with self._turn:
            if self._closing:
                raise RuntimeError(f"supervisor {self.name} has ended")
            lease.check()
            former = self._roster.get(spec.name)
            if former is not None and not former.state.is_final:
                raise ValueError(f"supervisor {self.name} has a child of the name {spec.name} already")
            if former is not None:
                self._roster.remove(former)
            self._roster.add(child)
            try:
                if not await self._adopt(child):
                    await self._start(child)
            except BaseException:
                self._roster.remove(child)
                raise
        return child

    async def _start(self, child: Child) -> None:
        spec = child.spec
        child.run = uuid.uuid4().hex
        child.lapsed = False
        child.presence = None
        child.state = ChildState.STARTING
        died = child.end is not None or spec.name in self._former
        await self._record(child)
        start = Start(
            name=spec.name,
            role=spec.role,
            ttl=spec.ttl,
            supervisor=self.name,
            run=child.run,
            wait=spec.ttl + TAKE_OVER_SECONDS,
            restore=spec.restart_from_checkpoint and died,
            function=spec.function,
            args=spec.args,
            address=self.state.address,
            namespace=self.state.namespace,
            timeout=self.state.timeout,
        )
        if spec.mode == "process":
            process = ProcessRun(start)
            await process.start()
            child.running = process
            if child.lapsed:  # it was there, and its lease has ended since
                process.kill()
            asyncio.get_running_loop().call_later(self._start_timeout, self._check_started, child, process)
        else:
            child.running = TaskRun(spec.name, run_agent(self.state, start))
        self._begin(self._follow(child))
        self._roster.changed(child)

    async def _adopt(self, child: Child) -> bool:
        """Take over the agent that a former supervisor started as this child, if it lives."""
        former = self._former.get(child.name)
        if former is None:
            return False
        child.restarts = int(former.get("restarts", 0))
        found = await self._directory.get(child.name)
        if found is None or found.run != former.get("run") or found.supervisor != self.name:
            return False
        gone = asyncio.get_running_loop().create_future()
        child.run, child.presence, child.gone = found.run, found, gone
        child.state = ChildState.RUNNING
        child.running = Adopted(found, gone, lambda: self._release(child))
        await self._record(child)
        self._begin(self._follow(child))
        self._roster.changed(child)
        if await self._directory.get(child.name) is None:  # it went before anybody looked
            self._gone(child, End(True, "it was gone"))
        log.info("%s has taken over %s", self.name, child.name)
        return True

    async def _follow(self, child: Child) -> None:
        """Wait for the end of this start of a child, and do what is to be done about it."""
        running = child.running
        assert running is not None
        end = await running.ended()
        async with self._turn:
            if child.running is running and not self._closing:
                await self._ended(child, End(True, "its lease ended", end.error) if child.lapsed else end)

    async def _ended(self, child: Child, end: End) -> None:
        child.running = child.presence = None
        child.end = end
        await self._release(child)
        group = child.group
        if not child.spec.restart.wants(failed=end.failed):
            child.state = ChildState.FAILED if end.failed else ChildState.RETURNED
            log.log(logging.WARNING if end.failed else logging.INFO, "%s has ended: %s", child.name, end.why)
            await self._record(child)
            self._roster.changed(child)
            return
        if not group.limit.spend(asyncio.get_running_loop().time()):
            child.state = ChildState.FAILED
            self._roster.changed(child)
            group.exceeded(child, end)
            return
        log.warning("%s is restarted: %s", child.name, end.why)
        others = [one for one in group.children if one is child or one.running is not None]
        restarted = affected(group.strategy, others, child)
        for other in reversed(restarted):
            if other is not child:
                await self._stop(other)
        for one in restarted:
            if one is child or one.spec.restart is not Restart.TEMPORARY:
                one.restarts += 1
                await self._start(one)
            else:
                await self._record(one)

    async def _stop(self, child: Child) -> None:
        """Have a child end, and give free what it held."""
        running, child.running = child.running, None
        if running is None:
            return
        child.state = ChildState.STOPPING
        self._roster.changed(child)
        await running.stop(self._grace)
        await self._release(child)
        child.presence = None
        child.state = ChildState.STOPPED
        child.end = End(False, "stopped")
        self._roster.changed(child)

    async def _stop_child(self, child: Child) -> None:
        async with self._turn:
            await self._stop(child)
            if not self._closing:
                await self._record(child)

    async def _release(self, child: Child) -> None:
        """End the lease of a child that has died, if it has not ended yet: what it held is free."""
        found = await self._directory.get(child.name)
        if found is not None and found.run == child.run:
            await self._revoke(found)

    async def _revoke(self, found: Presence) -> None:
        with contextlib.suppress(LeaseNotFound):
            await self.state.revoke_lease(found.incarnation, message=f"{found.name} has ended")

    async def _until_gone(self, found: Presence) -> End:
        await until_gone(self.state, layout.presence(found.name), self._grace)
        return End(True, "it was stopped")

    async def _record(self, child: Child) -> None:
        """Write down what a later supervisor of the name, and others, want to know."""
        status = child.status
        record = {
            "mode": status.mode,
            "state": status.state.value,
            "restarts": status.restarts,
            "run": child.run,
            "why": status.why,
        }
        await self.state.put(layout.child(self.name, child.name), record, guard=self._held())

    # What is seen of the children

    async def _watch(self) -> None:
        async for event in self._directory.watch():
            child = self._roster.get(event.presence.name)
            if child is not None and event.presence.run and event.presence.run == child.run:
                self._see(child, event)

    def _see(self, child: Child, event: PresenceEvent) -> None:
        if not event.is_end:
            if child.state in (ChildState.STARTING, ChildState.RUNNING):
                child.presence = event.presence
                child.state = ChildState.RUNNING
        else:
            child.presence = None
            child.lapsed = event.change is PresenceChange.CRASHED
            if child.gone is not None:
                self._gone(child, _end(event))
            elif child.running is not None:
                if child.lapsed:
                    child.running.kill()
                else:  # it ends by itself, or it hangs after it has left
                    asyncio.get_running_loop().call_later(self._grace, _kill, child, child.running)
        self._roster.changed(child)

    def _gone(self, child: Child, end: End) -> None:
        gone, child.gone = child.gone, None
        if gone is not None and not gone.done():
            gone.set_result(end)

    def _check_started(self, child: Child, running: ProcessRun) -> None:
        if child.running is running and child.state is ChildState.STARTING:
            running.kill()

    # The end

    def _exceeded(self, child: Child, end: End) -> None:
        self._block.fail(self._too_many(child, end, self._group.limit))

    def _too_many(self, child: Child, end: End, limit: RestartLimit) -> RestartLimitExceeded:
        within = f" within {limit.within:g} s" if limit.within < math.inf else ", and nothing came of it,"
        error = RestartLimitExceeded(
            f"{child.name} has ended ({end.why}), and there were {limit.most} restarts{within} before",
            reason="RESTART_LIMIT_EXCEEDED",
            metadata={"child": child.name},
        )
        error.__cause__ = end.error
        return error

    def _lost(self, lease: Lease) -> None:
        try:
            lease.check()
        except LeaseLost as error:
            self._block.fail(error)

    async def _close(self) -> None:
        alive = self._held().alive
        async with self._turn:
            self._closing = True
            groups: dict[int, Group] = {id(child.group): child.group for child in self._roster}
            await asyncio.gather(*(self._stop_group(group) for group in groups.values()))
            if alive:
                await self._stop_orphans()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._roster.close()
        if alive:
            await clean_up(self.state.delete(prefix=layout.children(self.name), guard=self._held()))
        await clean_up(self._held().revoke(message=f"supervisor {self.name} ends"))

    async def _stop_group(self, group: Group) -> None:
        """The last one that was spawned first; children that know nothing of each other all at once."""
        running = [child for child in reversed(group.children) if child.running is not None]
        if group.strategy is Strategy.ONE_FOR_ONE:
            await asyncio.gather(*(self._stop_for_good(child) for child in running))
        else:
            for child in running:
                await self._stop_for_good(child)

    async def _stop_for_good(self, child: Child) -> None:
        """Whatever the server says: what cannot be released runs out by itself."""
        try:
            await self._stop(child)
        except ComityError:
            log.warning("%s was stopped, but its lease could not be ended", child.name, exc_info=True)
            child.state = ChildState.STOPPED
            self._roster.changed(child)

    async def _stop_orphans(self) -> None:
        """Have those end that a former supervisor has started, and that nobody has spawned anew."""
        own = {child.run for child in self._roster}
        for found in await self._directory.list():
            if found.supervisor == self.name and found.run not in own:
                gone = asyncio.create_task(self._until_gone(found))
                await Adopted(found, gone, functools.partial(self._revoke, found)).stop(self._grace)
                gone.cancel()

    # Own tasks

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._block.fail(error)

    def _held(self) -> Lease:
        if self._lease is None:
            raise RuntimeError(f"supervisor {self.name} has not begun yet: use it inside of `async with`")
        return self._lease


def _end(event: PresenceEvent) -> End:
    if event.change is PresenceChange.CRASHED:
        return End(True, "its lease ended")
    failed = event.presence.status == "failed"
    return End(failed, str(event.presence.detail) if failed else "it left")


def _kill(child: Child, running: object) -> None:
    if child.running is running and child.running is not None:
        child.running.kill()
