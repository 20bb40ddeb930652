"""The store in memory: fast, and gone with the process, unless a journal keeps what it does."""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from comity_server.errors import Conflict, StateError
from comity_server.limits import Limits, Retention, Share
from comity_server.model import (
    Commit,
    Fork,
    Merge,
    Outcome,
    Position,
    Restore,
    Write,
)
from comity_server.stores.memory import actions
from comity_server.stores.memory.draft import Draft, Following
from comity_server.stores.memory.journal import Journal
from comity_server.stores.memory.judge import Quick, is_paced, judge, judge_paced, perform_paced, recall
from comity_server.stores.memory.leases import Deadlines
from comity_server.stores.memory.namespace import Collected, Namespace, Parent
from comity_server.stores.memory.pins import Totals
from comity_server.stores.memory.reads import Reads
from comity_server.stores.memory.trimming import trimmed
from comity_server.stores.protocol import Listener
from comity_server.tasks import finish
from comity_server.turns import Pace, of_this_loop, turn

_JUDGING_SECONDS = 0.005
AFTER_NAMES = "\x7f"  # is after all that names are made of
_DUE_AGAIN = 500_000  # µs, after which a lease that has run out and was not ended is due again


class MemoryStore(Reads):
    """Implements `stores.protocol.Store`. Use from one event loop."""

    def __init__(self, limits: Limits, journal: Journal | None = None) -> None:
        super().__init__(limits)
        self._journal = journal
        self._deadlines = Deadlines()
        self._beginning: set[str] = set()  # namespaces that are on their way to the journal
        self._deletions: deque[tuple[float, str]] = deque()
        self._listeners: dict[str, Listener] = {}
        self._finishing: set[asyncio.Task[Any]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """There is nothing to make ready."""

    async def close(self) -> None:
        """There is nothing to finish."""

    def writable(self) -> bool:
        return not self.trouble()

    def trouble(self) -> str:
        return ""

    async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
        outcomes: list[Outcome | StateError] = []
        turns = of_this_loop()
        async with self._lock(namespace):
            while len(outcomes) < len(group):
                if outcomes or turns.is_full:  # a group that takes long must not hold up others
                    await turns.next()
                outcomes += await self._commit(namespace, group[len(outcomes) :])
        return outcomes

    async def _commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
        """Commit the first writes of a group: as many as can be judged in a short time, or one that takes long."""
        first = group[0]
        if isinstance(first, Fork):
            return [await self._fork(namespace, first)]
        draft = self._draft(self._find(namespace))
        outcomes: list[Outcome | StateError] = []
        if isinstance(first, Restore | Merge):
            pace = Pace(draft.now)
            if isinstance(first, Restore):
                outcomes.append(await judge_paced(draft, first, partial(actions.restore, pace=pace)))
            else:
                outcomes.append(await judge_paced(draft, first, partial(self._merge, pace=pace)))
            pace.pause()
        else:
            pace = Pace(draft.now)
            for write in group:
                if is_paced(write):
                    outcomes.append(await judge_paced(draft, write, partial(perform_paced, pace=pace)))
                elif isinstance(write, Quick):
                    outcomes.append(judge(draft, write))
                else:
                    break
                if time.monotonic() - draft.now > _JUDGING_SECONDS:
                    break
            pace.pause()
        try:
            await self._carry_out(draft)
        except StateError as error:
            return [error] * len(outcomes)
        return outcomes

    async def _fork(self, namespace: str, action: Fork) -> Outcome | StateError:
        state = self._find(namespace)
        if state.create_time:
            return await judge_paced(self._draft(state), action, actions.commit_fork)
        known = recall(self._draft(state), action)  # whatever became of the fork and of its parent since
        if known is not None:
            return known
        try:
            parent = await self._hold_for(state, action)
        except StateError as error:
            return error
        fork: Namespace | None = None
        kept = False
        try:
            fork = actions.begin_fork(state, parent, self.limits, self._id_above(state))
            draft = self._draft(fork)
            outcome = await judge_paced(draft, action, actions.commit_fork)
            await self._carry_out(draft)
            kept = bool(draft.commits)
        except StateError as error:
            return error
        finally:
            if not kept:
                if fork is not None:
                    actions.give_up_fork(fork)
                await self._let_go_for(parent)
                await self._let_go(parent.namespace)
        return outcome

    async def _hold_for(self, empty: Namespace, action: Fork) -> Parent:
        """What is to be forked in place of an empty namespace, at a revision that stays readable until `_let_go_for`.
        Raises NamespaceNotFound, CheckpointNotFound, Compacted, RevisionInFuture."""
        parent = self._existing(action.parent)
        return Parent(parent, parent.resolve(action.ref))

    async def _let_go_for(self, parent: Parent) -> None:
        """The fork was not made, or is deleted."""

    def _id_above(self, empty: Namespace) -> int:
        """The id of a fork in place of an empty namespace: above that of its parent."""
        return next(self.ids)

    async def _merge(self, draft: Draft, action: Merge, pace: Pace) -> Outcome:
        return await actions.merge(draft, action, self._existing(action.fork), pace)

    def _draft(self, state: Namespace) -> Draft:
        limits, full = self.limits_of(state.name), self._full(state.name)
        return Draft(state, limits, time=self.time(), now=time.monotonic(), clock=self.clock(), full=full)

    def _full(self, name: str) -> Share | None:
        """Where a name is none yet: which of all namespaces, and those of its share, are as many as there may be."""
        if name in self.namespaces_by_name:
            return None
        for each in (Share("", self.limits.namespaces), self.limits_of(name).share):
            if each is not None and self._count(each.prefix) >= each.most:
                return each
        return None

    def _count(self, prefix: str) -> int:
        """How many namespaces have names that begin so, with those that are about to begin."""
        names = self.namespaces_by_name
        there = names.bisect_left(prefix + AFTER_NAMES) - names.bisect_left(prefix)
        return there + sum(name.startswith(prefix) for name in self._beginning)

    def time(self) -> int:
        """µs since 1970."""
        return time.time_ns() // 1000

    def watch_leases(self, state: Namespace) -> None:
        """Have the leases of a namespace, which has come with them, be due in time."""
        for held in state.leases:
            self._deadlines.add(state.name, state.leases, held.lease.id, held.deadline)

    async def _carry_out(self, draft: Draft) -> None:
        """Make a draft part of its namespace. Raises what the journal does; then nothing has changed."""
        if not draft.changes:
            return
        state = draft.base
        begins = state.name not in self.namespaces_by_name
        if begins:
            self._beginning.add(state.name)
        for made in draft.made():
            state.pin(made.revision, Totals(made.key_count, made.size_bytes))
        try:
            if self._journal is not None:
                await self._journal.commit(draft, begins=begins)
        except BaseException:
            for made in draft.made():
                state.release(made.revision)
            raise
        finally:
            self._beginning.discard(state.name)
        for lease in draft.leases.granted.values():  # they begin when the answer can be given, or a little later
            deadline = self.clock() + lease.ttl
            state.leases.grant(lease, deadline)
            self._deadlines.add(state.name, state.leases, lease.id, deadline)
        for id in draft.leases.ended:  # before the loop is left to others, who may want to renew it
            state.leases.end(id)
        if draft.commits:
            await state.apply(draft.commits)
        for name, checkpoint in draft.checkpoints.items():
            state.set_checkpoint(name, checkpoint)
        for request, fingerprint, outcome in draft.named.values():
            state.requests.remember(request, fingerprint, outcome, draft.now)
        if begins:
            self.namespaces_by_name[state.name] = state
            self.deleted.pop(state.name, None)
            self.counters.pop(state.name, None)
        if begins and state.parent is not None:
            self.reset(state.name)  # what a fork begins with no commit of it shows
        elif draft.commits:
            self.publish(state.name, draft.commits)

    async def take_over(self, name: str, following: Following) -> None:
        """Append what came next in another store that has the same namespace.

        Raises Conflict if it was changed here, and what the journal does.
        """
        commits, totals, checkpoints, named, granted, ended = following
        async with self._lock(name):
            draft = self._draft(self._existing(name))
            if commits and commits[0].revision != draft.revision + 1:
                raise Conflict(f"{name} is at revision {draft.revision}", namespace=name, revision=draft.revision)
            draft.commits += commits
            draft.revision += len(commits)
            draft.keys, draft.size_bytes = totals
            draft.time = commits[-1].time if commits else draft.base.time
            for checkpoint, made in checkpoints.items():
                draft.set_checkpoint(checkpoint, made)
            for one in named:
                draft.name(*one)
            for lease, remaining in granted:
                draft.leases.grant(lease, remaining)
            for id in ended:
                draft.end_lease(id, expired=False)
            draft.changes += len(commits) + len(named) + len(granted)
            await self._carry_out(draft)

    async def keep_alive(self, namespace: str, lease_ids: Sequence[int]) -> Sequence[int]:
        state = self._find(namespace)
        renewed = [(id, held) for id in lease_ids if (held := state.leases.get(id)) is not None]
        for _, held in renewed:
            held.deadline = max(held.deadline, self.clock() + held.lease.ttl)
        if self._journal is not None and renewed:
            await self._journal.keep_alive(state, {id: held.deadline for id, held in renewed})
        now = self.clock()  # some may have ended meanwhile
        alive = {id: max(1, held.deadline - now) for id, held in renewed if state.leases.get(id) is held}
        return [alive.get(id, 0) for id in lease_ids]

    async def due(self) -> Mapping[str, Sequence[int]]:
        found: dict[str, list[int]] = {}
        now = self.clock()
        for name, leases, id in self._deadlines.due(now, now + _DUE_AGAIN):
            if self._find(name).leases is leases:
                found.setdefault(name, []).append(id)
        return found

    async def follow(self, namespace: str, listener: Listener) -> Position:
        await self._fresh(namespace)
        self._listeners[namespace] = listener
        return self._find(namespace).position()

    def publish(self, name: str, commits: Sequence[Commit]) -> None:
        """Tell whoever follows a namespace what came next."""
        listener = self._listeners.get(name)
        if listener is not None:
            listener.publish(commits)

    def reset(self, name: str) -> None:
        """Tell whoever follows a namespace that its history has ended."""
        listener = self._listeners.get(name)
        if listener is not None:
            listener.reset()

    async def unfollow(self, namespace: str) -> None:
        self._listeners.pop(namespace, None)

    async def delete_namespace(self, name: str, if_revision: int | None = None) -> None:
        await finish(self._delete(name, if_revision), self._finishing)

    async def _delete(self, name: str, if_revision: int | None) -> Namespace:
        """Returns what it was. Others may have begun it anew by then."""
        async with self._lock(name):
            state = self._existing(name)
            if if_revision is not None and if_revision != state.revision:
                raise Conflict(
                    f"the newest revision of {name} is {state.revision}, not {if_revision}",
                    namespace=name,
                    revision=state.revision,
                )
            empty = Namespace(
                name, self.limits, self.epoch, id=next(self.ids), revision=state.revision + 1, time=state.time
            )
            empty.requests = state.requests
            if self._journal is not None:
                await self._journal.delete(state, empty.revision)
            del self.namespaces_by_name[name]
            self.keep_deleted(empty)
            state.deleted = True
            state.leases.clear()
            self.reset(name)
        for name in list(state.checkpoints):
            state.set_checkpoint(name, None)
        await self._let_go(state)
        return state

    def keep_deleted(self, empty: Namespace) -> None:
        """Of a deleted namespace the outcomes are remembered for the window, as of any other."""
        now = time.monotonic()
        self.deleted[empty.name] = (now, empty)
        self._deletions.append((now, empty.name))

    async def compact(self, name: str, revision: int = 0) -> int:
        return await finish(self._compact_to(name, revision), self._finishing)

    async def _compact_to(self, name: str, revision: int) -> int:
        await self._fresh(name)
        state = self._existing(name)
        floor = state.check_floor(revision)
        await self._compact(state, floor)
        return floor

    async def retain(self, name: str, retention: Retention) -> int:
        while True:
            async with self._lock(name):  # else a write that is on its way would be forgotten with what came before it
                state = self._existing(name)
                more = state.requests.sweep(time.monotonic())
                await self._forget_clients(state)
            if not more:
                break
            await asyncio.sleep(0)
        await self._compact(state, state.floor)  # after a start only this tells what is kept for pins
        more = True
        while more:
            before = state.log.base
            floor, more = state.due(retention, self.time())
            await self._compact(state, floor)
            more = more and state.log.base > before  # else it was dropped elsewhere, or will be
        return floor

    async def sweep(self) -> None:
        now = time.monotonic()
        while self._deletions and self._deletions[0][0] + self.limits.request_window < now:
            deleted_at, name = self._deletions[0]
            async with self._lock(name):
                gone = self.deleted.get(name)
                if gone is not None and gone[0] == deleted_at:  # else it was used again since, and maybe deleted again
                    if self._journal is not None and gone[1].requests:
                        await self._journal.forget_clients(name, gone[1].requests.names())
                    del self.deleted[name]
                    self.counters[name] = (gone[1].revision, gone[1].time)
            self._deletions.popleft()
        excess = len(self.counters) - self.limits.namespaces
        if excess <= 0:
            return
        oldest = list(itertools.islice(self.counters.items(), excess))
        least = max(self.least_revision, *(revision for _, (revision, _) in oldest))
        if self._journal is not None:
            await self._journal.forget_names([name for name, _ in oldest], least)
        self.least_revision = max(self.least_revision, least)
        for name, counter in oldest:
            if self.counters.get(name) == counter:
                del self.counters[name]

    async def _compact(self, state: Namespace, floor: int) -> None:
        """Raise the floor, and drop what cannot be read any more, a little at a time. What is cut off is taken up by
        the next one."""
        if floor > state.floor:
            if self._journal is not None:
                await self._journal.floor(state, floor)
            state.floor = max(state.floor, floor)
        before = state.history_bytes
        async with state.quiet:
            while (collected := state.owed or await _collect(state)) is not None:
                state.owed = collected  # until the journal has it: else what is gone here would come back with a start
                if self._journal is not None:
                    await self._journal.collected(state, collected)
                state.owed = None
        left = state.history_bytes
        await trimmed(before - left, left + state.versions.live_bytes)

    async def _let_go(self, state: Namespace) -> None:
        """Of a deleted namespace keep what forks share of it, or else nothing, and let go of what it shares itself."""
        dropped = actions.let_go(state)
        if dropped:
            of = dropped[-1].parent
            parent = of.namespace if of is not None else None
        else:
            parent = state
        if self._journal is not None and dropped:
            await self._journal.drop(dropped)
        freed = sum(gone.history_bytes + gone.versions.live_bytes for gone in dropped)
        for gone in dropped:
            await gone.dismantle()
        await trimmed(freed, 0)
        if parent is not None and parent.deleted and not parent.given_up:
            await self._compact(parent, parent.revision)

    async def _forget_clients(self, state: Namespace) -> None:
        """Have the journal forget the clients that are forgotten here."""
        swept = state.requests.take_swept()
        if self._journal is None or not swept:
            return
        try:
            await self._journal.forget_clients(state.name, swept)
        except BaseException:
            state.requests.swept += swept
            raise

    def _lock(self, name: str) -> asyncio.Lock:
        """Who holds it is alone in changing a namespace."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock


async def _collect(state: Namespace) -> Collected | None:
    async with turn():
        return state.collect()
