"""Restores, forks and merges: the writes whose cost is that of what changed, and which let others in between.

While one runs nothing else is committed to its namespace, and nothing that it reads is dropped.
"""

from contextlib import AsyncExitStack
from dataclasses import replace

from comity_server.errors import (
    CommitTooLarge,
    Conflict,
    ForkTooDeep,
    NamespaceExists,
    NamespaceNotFound,
    NotAFork,
)
from comity_server.limits import Limits
from comity_server.model import (
    CONFLICT_BYTES,
    DIFFERENCES,
    Action,
    Difference,
    Fork,
    Merge,
    MergeConflict,
    MergeResult,
    Outcome,
    Restore,
    RestoreResult,
    Strategy,
)
from comity_server.record import VALUE, Record, same_content, without_value
from comity_server.stores.memory.differences import changed_keys, without_values
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.log import size as commit_size
from comity_server.stores.memory.namespace import Namespace, Parent
from comity_server.stores.memory.operations import KEY_STEPS, Work
from comity_server.turns import Pace


class Changes:
    """The changes that an action makes to the keys of a draft, counted."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._work = Work(draft)
        self.put = 0
        self.deleted = 0

    def make_equal(self, key: str, wanted: Record | None) -> None:
        """Give a key the content of an entry that is not equal to its own. Raises CommitTooLarge."""
        if self.put + self.deleted >= self._draft.limits.restore_events:
            raise CommitTooLarge(self._draft.limits.restore_events)
        self._work.make_equal(key, wanted)
        if wanted is None:
            self.deleted += 1
        else:
            self.put += 1

    async def commit(self, action: Action, message: str, pace: Pace) -> None:
        """Add them to the draft, if there are any. Raises QuotaExceeded."""
        if self._work.events:
            self._work.check_quotas()
            said = action if action.message else replace(action, message=message)
            work = self._work
            await self._draft.add_paced(said, work.events, pace, keys=work.keys, size_bytes=work.size_bytes)


async def restore(draft: Draft, action: Restore, pace: Pace) -> Outcome:
    """Make a prefix equal to what it was. Raises NamespaceNotFound, CheckpointNotFound, Compacted, RevisionInFuture,
    Conflict, CommitTooLarge, QuotaExceeded."""
    state = draft.base
    if not state.create_time:
        raise NamespaceNotFound(state.name)
    state.resolve(action.ref)
    if action.if_revision is not None and action.if_revision != state.revision:
        raise Conflict(
            f"the newest revision of {state.name} is {state.revision}, not {action.if_revision}",
            namespace=state.name,
            revision=state.revision,
        )
    changes = Changes(draft)
    shown: list[Difference] = []
    async with state.quiet:  # only from here on nothing is dropped of what can be read
        pace.resume()
        revision = state.resolve(action.ref)
        for key in await changed_keys(draft, revision, action.prefix, pace):
            draft.steps += KEY_STEPS
            await pace.step(KEY_STEPS)
            now, then = state.versions.live_at(key, state.revision), state.versions.live_at(key, revision)
            if same_content(now, then):
                continue
            changes.make_equal(key, then)
            if action.dry_run and len(shown) < DIFFERENCES:
                shown.append(without_values(Difference(key, now, then)))
    if not action.dry_run:
        what = f"{action.ref} (revision {revision})" if isinstance(action.ref, str) else f"revision {revision}"
        message = f"restore {action.prefix!r} to {what}" if action.prefix else f"restore to {what}"
        await changes.commit(action, message, pace)
    return Outcome(not action.dry_run, draft.revision, (RestoreResult(changes.put, changes.deleted, shown),))


async def merge(draft: Draft, action: Merge, fork: Namespace, pace: Pace) -> Outcome:
    """Bring in what a fork changed. Raises NamespaceNotFound, NotAFork, CommitTooLarge, QuotaExceeded."""
    state = draft.base
    if not state.create_time:
        raise NamespaceNotFound(state.name)
    if fork.parent is None or (fork.parent.namespace.name, fork.parent.namespace.id) != (state.name, state.id):
        raise NotAFork(fork.name, state.name)
    changes = Changes(draft)
    conflicts: list[MergeConflict] = []
    count, room = 0, CONFLICT_BYTES
    async with AsyncExitStack() as stack:
        for of in (state, fork):
            await stack.enter_async_context(of.quiet)
        pace.resume()
        if fork.deleted:  # meanwhile
            raise NamespaceNotFound(fork.name)
        theirs_revision = fork.revision
        for key in fork.versions.own_keys():
            draft.steps += KEY_STEPS
            await pace.step(KEY_STEPS)
            base = state.versions.live_at(key, fork.parent.revision)
            ours = state.versions.live_at(key, state.revision)
            theirs = fork.versions.live_at(key, theirs_revision)
            if same_content(theirs, base) or same_content(theirs, ours):
                continue
            if not same_content(ours, base):
                count += 1
                if len(conflicts) < DIFFERENCES:
                    conflict = MergeConflict(key, base, ours, theirs)
                    room -= sum(len(entry[VALUE]) for entry in (base, ours, theirs) if entry is not None)
                    conflicts.append(conflict if room >= 0 else _without_values(conflict))
                if action.strategy is not Strategy.THEIRS:
                    continue
            changes.make_equal(key, theirs)
    merged = not action.dry_run and not (count and action.strategy is Strategy.FAIL)
    if merged:
        await changes.commit(action, f"merge {fork.name} (revision {theirs_revision})", pace)
    return Outcome(merged, draft.revision, (MergeResult(changes.put, changes.deleted, conflicts, count),))


def _without_values(conflict: MergeConflict) -> MergeConflict:
    key, *entries, _ = conflict
    base, ours, theirs = (None if entry is None else without_value(entry) for entry in entries)
    return MergeConflict(key, base, ours, theirs, values_omitted=True)


def begin_fork(empty: Namespace, of: Parent, limits: Limits, id: int) -> Namespace:
    """A namespace that shares what another one held at a readable revision, in place of an empty one of its name. It
    pins that there, unless there is a hold that does: `give_up_fork` undoes it. Raises ForkTooDeep."""
    parent, revision, _ = of
    if parent.depth >= limits.fork_depth:
        raise ForkTooDeep(limits.fork_depth)
    totals = parent.totals(revision)
    fork = Namespace(
        empty.name,
        limits,
        empty.epoch,
        id=id,
        revision=max(revision, empty.revision),  # neither the parent's nor those of an earlier namespace of this name
        time=max(parent.time, empty.time),
        parent=of,
        totals=totals,
    )
    fork.requests = empty.requests
    if not of.hold:
        parent.pin(revision, totals)
    parent.forks += 1
    return fork


def give_up_fork(fork: Namespace) -> None:
    """Let go of what a fork shares."""
    assert fork.parent is not None
    fork.given_up = True
    if not fork.parent.hold:
        fork.parent.namespace.release(fork.parent.revision)
    fork.parent.namespace.forks -= 1


def let_go(state: Namespace) -> list[Namespace]:
    """Of what nobody but forks asks for any more. If none shares it, it shares nothing itself; and so on. Returns those
    that are of no use to anybody."""
    dropped: list[Namespace] = []
    of: Namespace | None = state
    while of is not None and (of.deleted or of.replaced) and not of.forks and not of.given_up:
        dropped.append(of)
        if of.parent is None:
            break
        give_up_fork(of)
        of = of.parent.namespace
    return dropped


async def commit_fork(draft: Draft, action: Fork) -> Outcome:
    """The first commit of a fork, which changes nothing and says who forked. Raises NamespaceExists, QuotaExceeded."""
    fork = draft.base
    if fork.create_time or fork.parent is None:
        raise NamespaceExists(fork.name)
    draft.check_room()
    of = fork.parent.namespace.name + (f"@{action.ref}" if isinstance(action.ref, str) else "")
    message = action.message or f"fork {of} (revision {fork.parent.revision})"
    draft.add(replace(action, message=message), {}, keys=0, size_bytes=0)
    (commit,) = draft.commits
    begun = fork.info()._replace(
        revision=commit.revision,
        commit_count=1,
        history_size_bytes=commit_size(commit),
        create_time=commit.time,
        update_time=commit.time,
    )
    return Outcome(True, draft.revision, (begun,))
