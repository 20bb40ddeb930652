"""Starting children, watching over them, and starting them anew: what a supervisor does, without its block."""

import asyncio
import functools
import logging
import math
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, Final

from comity.cleanup import begun
from comity.client import Client
from comity.errors import ComityError
from comity.leases.lease import Lease

from . import layout
from .children import Child, ChildState, Group, Roster, Spec
from .ledger import Former, Ledger
from .presence import Directory, Presence, PresenceChange, PresenceEvent, until_gone
from .process import Start, run_agent
from .restarts import Restart, Strategy, affected, cannot_start, too_many
from .running import Adopted, End, ProcessRun, Running, TaskRun
from .text import described

__all__ = ["Supervision"]

TAKE_OVER_SECONDS: Final = 5.0  # beyond the ttl of an agent that died, for its name to be free

log = logging.getLogger("comity.agents")


class Supervision:
    """The children of one supervisor. Whoever starts some of a group, or decides on their end, has its turn: one after
    another. Nobody has it who waits for a single child to end.

    lease: the supervisor's own, by which all is guarded that it writes.
    former: what a former supervisor of the name has written down of its children, by their names.
    failed: called with what nothing can be done about.
    """

    def __init__(
        self,
        state: Client,
        name: str,
        lease: Lease,
        former: dict[str, Former],
        ledger: Ledger,
        *,
        grace: float,
        start_timeout: float,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.roster = Roster()
        self._state = state
        self._name = name
        self.lease = lease
        self._former = former
        self._ttls = {lease.ttl}  # that the server grants
        self._grace = grace
        self._start_timeout = start_timeout
        self._failed = failed
        self._ledger = ledger
        self._there: dict[str, Presence] = {}  # by what the watch has seen
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._begin(self._watch())

    async def spawn(self, spec: Spec, group: Group) -> Child:
        """Take over the child of this name if there is one, or else start one."""
        child = Child(spec, group, self.stop)
        async with group.turn:
            if self._closing:
                raise RuntimeError(f"supervisor {self._name} has ended")
            self.lease.check()
            former = self.roster.get(spec.name)
            if former is not None and not former.state.is_final:
                raise ValueError(f"supervisor {self._name} has a child of the name {spec.name} already")
            if former is not None:
                self.roster.remove(former)
            self.roster.add(child)
            try:
                if not await self._adopt(child):
                    await self._start(child)
            except BaseException:
                child.running = None
                self.roster.remove(child)
                raise
        return child

    async def stop(self, child: Child) -> None:
        """Have a child end for good. It goes on if whoever waits for that is cancelled."""
        async with child.group.turn:
            ending = self._stop(child)
        await ending
        async with child.group.turn:
            if child.state is ChildState.STOPPED and self.roster.get(child.name) is child and not self._closing:
                await self._ledger.write(child)

    async def dismiss(self, group: Group) -> None:
        """Have the children of a group end, and forget them."""
        async with group.turn:
            await self._stop_group(group)
            for child in list(group.children):
                self.roster.remove(child)
                if not self._closing:
                    await self._ledger.forget(child)

    async def close(self) -> None:
        """Have all children end, also those of a former supervisor that nobody has spawned again; and forget them,
        unless the lease was lost: then they are another supervisor's, if there is one."""
        self._closing = True
        self._ledger.hurry()
        if not self.lease.alive and await self._ledger.is_replaced():
            self._leave_processes()
        groups = {id(child.group): child.group for child in self.roster}
        await asyncio.gather(*(self._close_group(group) for group in groups.values()))
        if self.lease.alive:
            await self._stop_orphans()
            await self._ledger.forget_all()

    async def end(self) -> None:
        """Watch over nothing any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.roster.close()

    def kill(self) -> None:
        """Kill all children that are to end: who ends them is in a hurry."""
        for child in self.roster:
            for running in (child.running, child.stopping):
                if running is not None:
                    running.kill()

    def _leave_processes(self) -> None:
        for child in self.roster:
            if child.running is not None and child.running.leave():
                child.running = child.presence = None
                child.state = ChildState.STOPPED
                child.end = End(False, "left to a later supervisor")
                self.roster.changed(child)

    # Starting

    async def _start(self, child: Child) -> None:
        spec = child.spec
        child.begin(uuid.uuid4().hex)
        if spec.ttl not in self._ttls:  # one that is refused is refused here, and not to each agent that is started
            await self._ledger.write(child, ttl=spec.ttl)
            self._ttls.add(spec.ttl)
        await self._ledger.write(child)
        start = Start(
            name=spec.name,
            role=spec.role,
            ttl=spec.ttl,
            supervisor=self._name,
            run=child.run,
            wait=spec.ttl + TAKE_OVER_SECONDS,
            restore=spec.restart_from_checkpoint and (child.end is not None or spec.name in self._former),
            function=spec.function,
            args=spec.args,
            access=self._state._access,
            namespace=self._state.namespace,
            author=self._state.author,
            timeout=self._state.timeout,
            tries=spec.tries,
            checkpoints=spec.checkpoints,
        )
        if spec.mode == "process":
            process = ProcessRun(start)
            await process.start()
            child.running = process
            if child.lapsed:  # it was there, and its lease has ended since
                process.kill()
        else:
            child.running = TaskRun(spec.name, run_agent(self._state, start))
        self._begin(self._follow(child))
        if (found := self._there.get(child.name)) is not None and found.run != child.run:
            self._meet(child, found)
        self.roster.changed(child)

    async def _adopt(self, child: Child) -> bool:
        """Take over the agent that a former supervisor has started as this child, if it lives."""
        former = self._former.get(child.name)
        if former is None:
            return False
        child.restarts = former.restarts
        found = await self._ledger.find(child.name)
        if found is None or found.run != former.run or found.supervisor != self._name:
            return False
        if not former.is_process:  # a task of a supervisor that has ended, or will when it goes on
            await self._ledger.revoke(found)
            return False
        child.begin(found.run)
        await self._ledger.write(child)
        child.gone = asyncio.get_running_loop().create_future()
        child.running = self._adopted(found, child.gone)
        child.there(found)
        self._begin(self._follow(child))
        self.roster.changed(child)
        now = await self._ledger.find(child.name)  # whatever happened to it before anybody looked
        if now is None or now.run != child.run:
            child.went(End(True, "it was gone"))
        else:
            child.there(now)
        log.info("%s has taken over %s", self._name, child.name)
        return True

    def _adopted(self, found: Presence, gone: "asyncio.Future[End]") -> Adopted:
        former = self._former.get(found.name)
        owns_process = former is not None and former.is_process
        return Adopted(found, gone, functools.partial(self._ledger.revoke, found), owns_process=owns_process)

    # Ends

    async def _follow(self, child: Child) -> None:
        """Wait for the end of this start of a child, and do what is to be done about it."""
        running = child.running
        assert running is not None
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._start_timeout, self._kill_unless_there, child, running)
        try:
            end = await running.ended()
        finally:
            timer.cancel()
        seen = loop.time()
        if child.lapsed:
            end = End(True, "its lease ended", end.error)
        elif child.late:
            rival = "" if child.rival is None else f": {child.status.why}"
            end = End(True, f"did not start within {self._start_timeout:g} s{rival}", end.error)
        async with child.group.turn:
            if child.running is running and not self._closing:
                await self._ended(child, end, seen)

    async def _ended(self, child: Child, end: End, seen: float) -> None:
        child.running = child.presence = None
        child.end = end
        await self._ledger.release(child, end.why if end.failed else "")
        group = child.group
        if not child.spec.restart.wants(failed=end.failed):
            child.state = ChildState.FAILED if end.failed else ChildState.RETURNED
            log.log(logging.WARNING if end.failed else logging.INFO, "%s has ended: %s", child.name, end.why)
            await self._ledger.write(child)
            self.roster.changed(child)
            return
        if end.hopeless:
            child.state = ChildState.FAILED
            self.roster.changed(child)
            group.failed(cannot_start(child.name, end.why))
            return
        if not group.limit.spend(seen, child.name):
            child.state = ChildState.FAILED
            self.roster.changed(child)
            group.failed(too_many(child.name, end.why, end.error, group.limit))
            return
        log.warning("%s is restarted: %s", child.name, end.why)
        restarted = affected(group.strategy, [one for one in group.children if one is child or one.running], child)
        for other in reversed(restarted):
            await self._stop(other)
        for one in restarted:
            if one is child or one.spec.restart is not Restart.TEMPORARY:
                await self._restart(one)
            else:
                await self._ledger.write(one)

    async def _restart(self, child: Child) -> None:
        child.restarts += 1
        try:
            await self._start(child)
        except OSError as error:  # the system can start no process now
            await self._ended(child, End(True, described(error), error), asyncio.get_running_loop().time())

    def _stop(self, child: Child) -> "asyncio.Future[None]":
        """Have a child end, if it runs, and give free what it held. It goes on if whoever waits is cancelled."""
        if child.running is not None:
            child.stopping, child.running = child.running, None
            child.state = ChildState.STOPPING
            child.ending = begun(self._finish(child, child.stopping))
            self.roster.changed(child)
        return asyncio.shield(child.ending or begun(asyncio.sleep(0)))

    async def _finish(self, child: Child, running: Running) -> None:
        try:
            await running.stop(self._grace_of(child))
            await self._ledger.release(child)
        finally:
            child.stopping = child.presence = None
            child.state = ChildState.STOPPED
            child.end = End(False, "stopped")
            self.roster.changed(child)

    def _grace_of(self, child: Child) -> float:
        return self._grace if child.spec.grace is None else child.spec.grace

    async def _close_group(self, group: Group) -> None:
        async with group.turn:
            await self._stop_group(group)

    async def _stop_group(self, group: Group) -> None:
        """The last one that was spawned first; children that know nothing of each other all at once."""
        running = [
            child for child in reversed(group.children) if child.running is not None or child.stopping is not None
        ]
        if group.strategy is Strategy.ONE_FOR_ONE:
            await asyncio.gather(*(self._stop_anyway(child) for child in running))
        else:
            for child in running:
                await self._stop_anyway(child)

    async def _stop_anyway(self, child: Child) -> None:
        """Whatever the server says, or if the client was closed: what cannot be released runs out by itself."""
        try:
            await self._stop(child)
        except (ComityError, RuntimeError):
            log.warning("%s was stopped, but its lease could not be ended", child.name, exc_info=True)

    async def _stop_orphans(self) -> None:
        own = {child.run for child in self.roster}
        orphans = [found for found in await self._ledger.agents() if found.run not in own]
        await asyncio.gather(*(self._stop_orphan(found) for found in orphans))

    async def _stop_orphan(self, found: Presence) -> None:
        gone = asyncio.create_task(self._until_gone(found))
        try:
            await self._adopted(found, gone).stop(self._grace)
        finally:
            gone.cancel()

    async def _until_gone(self, found: Presence) -> End:
        await until_gone(self._state, layout.presence(found.name), self._grace)
        return End(True, "it was stopped")

    # What is seen of the children

    async def _watch(self) -> None:
        async for event in Directory(self._state).watch():
            found = event.presence
            if event.is_end:
                self._there.pop(found.name, None)
            else:
                self._there[found.name] = found
            child = self.roster.get(found.name)
            if child is None or not child.run:
                continue
            if found.run == child.run:
                self._see(child, event)
            elif event.is_end:
                child.rival = None
            else:
                self._meet(child, found)
            self.roster.changed(child)

    def _kill_unless_there(self, child: Child, running: Running) -> None:
        if child.running is running and child.state is ChildState.STARTING and self.lease.alive:
            child.late = True
            running.kill()

    def _meet(self, child: Child, found: Presence) -> None:
        """Another agent has the child's name. One that a former supervisor has started, and that was not there when
        this one began to, is nobody's child: it is ended."""
        if found.supervisor == self._name:
            self._begin(self._end_stray(found))
        elif child.state is ChildState.STARTING:
            known, child.rival = child.rival, found
            if known is None or known.incarnation != found.incarnation:
                log.warning("%s cannot begin: %s", child.name, child.status.why)

    async def _end_stray(self, found: Presence) -> None:
        now = await self._ledger.find(found.name)
        if now is None or now.run != found.run:  # it has ended since, as one that was restarted has
            return
        log.warning("%s, that a former supervisor %s has started, is ended", found.name, self._name)
        await self._ledger.revoke(found)
        self._adopted(found, asyncio.get_running_loop().create_future()).kill()

    def _see(self, child: Child, event: PresenceEvent) -> None:
        if not event.is_end:
            child.there(event.presence)
            return
        child.presence = None
        child.lapsed = event.change is PresenceChange.CRASHED
        if child.running is not None:
            if child.lapsed:
                child.running.kill()
            elif self._grace_of(child) < math.inf:  # it ends by itself; or it has left, and hangs
                asyncio.get_running_loop().call_later(self._grace_of(child), _kill, child, child.running)
        child.went(_end(event))

    # Own tasks

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if self._closing and isinstance(error, ComityError):  # whoever waited for an answer waits no longer
                log.debug("supervisor %s ends", self._name, exc_info=error)
            else:
                self._failed(error)


def _end(event: PresenceEvent) -> End:
    """How an agent has ended of which only the presence is known."""
    if event.change is PresenceChange.CRASHED:
        return End(True, "its lease ended")
    match event.presence.status:
        case "failed":
            return End(True, str(event.presence.detail))
        case "cancelled":
            return End(True, "cancelled")
        case _:
            return End(False, "it left")


def _kill(child: Child, running: object) -> None:
    if child.running is not None and child.running is running:
        child.running.kill()
