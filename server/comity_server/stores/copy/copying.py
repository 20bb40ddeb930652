"""Copies namespaces, family by family; then reads the target anew and compares all of it."""

from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from comity_server.errors import Conflict
from comity_server.model import Checkpoint, RequestId
from comity_server.stores.copy.comparing import ancestors, compare, lacks_requests
from comity_server.stores.copy.planning import Action, Plan, Step
from comity_server.stores.memory.draft import Following, Named
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.parts import batches, together
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.transfer import Arrivals, Counter, Loaded, Progress, Reader, Remaining

EVENTS: Final = 2_000  # of commits that are appended together
NAMES: Final = 200  # of deleted namespaces that are seen to together
CHANGED: Final = "it has changed while it was copied: run the copy again"

Ending = Literal["copied", "replaced", "continued", "there", "counted", "conflict", "changed", "unequal"]
TargetOf = Callable[[Sequence[str]], Awaitable[MemoryStore]]


class NoNamespace(Exception):
    """The source has none of that name."""


class Result(NamedTuple):
    """What became of one namespace. The figures are of the source."""

    namespace: str
    ending: Ending
    reason: str = ""
    revision: int = 0
    keys: int = 0
    commits: int = 0
    checkpoints: int = 0
    outcomes: int = 0  # that are remembered

    @property
    def is_equal(self) -> bool:
        """Whether the target has what the source has."""
        return self.ending in ("copied", "replaced", "continued", "there", "counted")


class Choice(NamedTuple):
    """Which namespaces. With neither, all."""

    names: Sequence[str] = ()
    prefix: str | None = None

    @property
    def is_all(self) -> bool:
        return not self.names and self.prefix is None

    async def of(self, source: Reader) -> Sequence[str]:
        """Raises NoNamespace."""
        if self.is_all:
            return await source.names()
        found = set(await source.names(self.prefix)) if self.prefix is not None else set()
        known = (await source.load(self.names)).store
        for name in self.names:
            if not known.state(name).revision:
                raise NoNamespace(name)
        return sorted(found.union(self.names))


ENDINGS: Final[dict[Action, Ending]] = {
    "copy": "copied",
    "replace": "replaced",
    "continue": "continued",
    "nothing": "there",
    "conflict": "conflict",
}


class Copy:
    """A copy of some namespaces. First `choose`, then `write`, then with the target opened anew `verify`.

    Args:
        source: is open.
        choice: see there. What a namespace was forked from comes with it.
        overwrite: whether other namespaces that the target has under these names are replaced.
    """

    def __init__(self, source: Reader, choice: Choice, *, overwrite: bool) -> None:
        self._source = source
        self._choice = choice
        self._overwrite = overwrite
        self._chosen: Sequence[str] = ()
        self._families: Sequence[Sequence[str]] = ()
        self._counters: Sequence[str] = ()  # names of deleted namespaces, which go on counting
        self._stands: dict[str, Hashable] = {}
        self._results: dict[str, Result] = {}

    @property
    def results(self) -> Sequence[Result]:
        """What became of each, in the order of their names."""
        return [self._results[name] for name in sorted(self._results)]

    async def choose(self) -> None:
        """Find out what is to be copied. Raises NoNamespace."""
        self._chosen = await self._choice.of(self._source)
        families: dict[tuple[str, int], dict[str, int]] = {}
        counters: list[str] = []
        for name in self._chosen:
            lineage = await self._source.lineage(name)
            if not lineage[0].exists:
                counters.append(name)
                continue
            family = families.setdefault(lineage[-1][:2], {})
            for above, ancestor in enumerate(reversed(lineage)):
                if ancestor.exists:
                    family[ancestor.name] = above
        self._counters = counters
        self._families = [sorted(family, key=lambda name: (family[name], name)) for family in families.values()]

    async def plan(self, target_of: TargetOf) -> None:
        """Find out what `write` would do, given what the target has of some namespaces."""
        for family in self._families:
            loaded = await self._source.load(family)
            plan = await self._plan(loaded, await target_of(family), family)
            for step in plan.steps:
                self._note(_result(step.source, ENDINGS[step.action], step.reason))
        for some in _chunks(self._counters):
            loaded = await self._source.load(some)
            await self._count([loaded.store.state(name) for name in some], await target_of(some), None)

    async def write(self, target: MemoryStore, arrivals: Arrivals, progress: Progress) -> None:
        """Bring the target up to date. What was copied before is not copied again."""
        if self._choice.is_all:
            await arrivals.raise_least(self._source.least_revision)
        for family in self._families:
            loaded = await self._source.load(family)
            self._stands |= loaded.stands
            plan = await self._plan(loaded, target, family)
            reason = ""
            try:
                await self._carry_out(plan, target, arrivals, progress)
            except Conflict as error:
                reason = error.message
            for step in plan.steps:
                failed = reason and step.action != "nothing"
                ending = "conflict" if failed else ENDINGS[step.action]
                self._note(_result(step.source, ending, reason if failed else step.reason))
            # Those that were deleted meanwhile are counted.
            states = map(loaded.store.state, family)
            await self._count([state for state in states if not state.create_time], target, arrivals)
        for some in _chunks(self._counters):
            loaded = await self._source.load(some)
            self._stands |= loaded.stands
            await self._count([loaded.store.state(name) for name in some], target, arrivals)

    async def verify(self, target: MemoryStore) -> None:
        """Compare what the target has with what the source has now."""
        for family in [*self._families, *_chunks(self._counters)]:
            loaded = await self._source.load(family)
            for name in family:
                known = self._results.get(name)
                if known is not None and known.is_equal:
                    self._note(await self._verified(known, loaded, target))
        for name in await self._choice.of(self._source):
            if name not in self._stands and (await self._source.lineage(name))[0].exists:
                self._note(Result(name, "changed", CHANGED))

    async def _verified(self, known: Result, loaded: Loaded, target: MemoryStore) -> Result:
        name = known.namespace
        if loaded.stands[name] != self._stands[name]:
            return known._replace(ending="changed", reason=CHANGED)
        there = await target.position(name)
        state = loaded.store.state(name)
        if known.ending == "counted" or not state.create_time:
            lacks = lacks_requests(state.requests, target.state(name).requests)
            if lacks or there.revision < state.revision or name in target.namespaces_by_name:
                return known._replace(ending="unequal", reason="it is not counted on, or lacks remembered outcomes")
            return known
        if name not in target.namespaces_by_name:
            return known._replace(ending="unequal", reason="it is not there")
        found = await compare(loaded.store, target, name)
        if not found.is_equal:
            return known._replace(ending="unequal", reason=found.other or found.behind)
        return known

    async def _plan(self, loaded: Loaded, target: MemoryStore, family: Sequence[str]) -> Plan:
        states = [loaded.store.state(name) for name in family]
        forgetful: set[str] = set()
        while True:
            plan = Plan(loaded.store, target, overwrite=self._overwrite, forgetful=forgetful)
            for state in sorted(states, key=lambda state: state.depth):
                ancestor, _ = ancestors(state, state)
                if ancestor is not None and ancestor not in states:  # it was forked anew meanwhile
                    self._note(Result(state.name, "changed", CHANGED))
                elif state.create_time:
                    await plan.add(state.name)
            if not self._overwrite or plan.lacking <= forgetful:
                return plan
            forgetful |= plan.lacking

    async def _carry_out(self, plan: Plan, target: MemoryStore, arrivals: Arrivals, progress: Progress) -> None:
        continued = [step for step in plan.steps if step.action == "continue"]
        for step in continued:
            await _continue(step, arrivals, progress, self._source.remaining)
        if plan.arrivals:
            await arrivals.bring(plan.arrivals, plan.replaced, progress, self._source.remaining)
        # Only now: until the forks are there, nothing else may keep the revisions that they share.
        for step in continued:
            await _settle(step, target, arrivals)
        for step in plan.steps:
            if step.action in ("continue", "nothing") and step.source.leases:
                await arrivals.renew(step.name, await self._source.remaining(step.name))

    async def _count(self, states: Sequence[Namespace], target: MemoryStore, arrivals: Arrivals | None) -> None:
        """Have names of deleted namespaces go on counting; without arrivals, see what that would come to."""
        counters: list[Counter] = []
        for state in states:
            name = state.name
            there = await target.position(name)
            exists = name in target.namespaces_by_name
            if exists and not self._overwrite:
                self._note(Result(name, "conflict", "it is deleted at the source, and is there"))
                continue
            own = target.state(name)
            if arrivals is not None and exists:
                await target.delete_namespace(name)
                there = await target.position(name)
            if there.revision < state.revision or lacks_requests(state.requests, own.requests):
                revision, time = max(there.revision, state.revision), max(own.time, state.time)
                counters.append(Counter(name, revision, time, together(own.requests, state.requests)))
            self._note(Result(name, "replaced" if exists else "counted", revision=state.revision))
        if arrivals is not None and counters:
            for name in await arrivals.raise_counters(counters):
                self._note(Result(name, "conflict", "somebody uses it there meanwhile"))

    def _note(self, result: Result) -> None:
        self._results[result.namespace] = result


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), NAMES):
        yield names[start : start + NAMES]


def _result(state: Namespace, ending: Ending, reason: str) -> Result:
    info = state.info()
    outcomes = sum(len(known) for _, _, _, known in state.requests.all())
    figures = info.revision, info.key_count, info.commit_count, len(state.checkpoints), outcomes
    return Result(state.name, ending, reason if ending == "conflict" else "", *figures)


async def _continue(step: Step, arrivals: Arrivals, progress: Progress, remaining: Remaining) -> None:
    """Append what the target lacks."""
    state, there = step.source, step.target
    assert there is not None
    since, total = there.revision, state.revision - there.revision
    with_commits, others = _lacking(state, there)
    commits = iter(state.log.between(since + 1, state.revision))
    missing = [held.lease for held in state.leases if there.leases.get(held.lease.id) is None]
    ended = [held.lease.id for held in there.leases if state.leases.get(held.lease.id) is None]
    left = await remaining(state.name) if missing else {}
    granted = [(lease, left.get(lease.id, lease.ttl)) for lease in missing]
    for some in batches(commits, events=EVENTS):
        newest = some[-1].revision
        named = [one for one in with_commits if one.outcome.revision <= newest]
        with_commits = with_commits[len(named) :]
        new = [one for one in granted if one[0].id <= newest]  # with them, since keys of theirs may live by these
        granted = granted[len(new) :]
        await arrivals.take_over(state.name, Following(some, state.log.totals(newest), {}, named, new))
        progress(state.name, newest - since, total)
    checkpoints = {name: made for name, made in state.checkpoints.items() if there.checkpoints.get(name) != made}
    if checkpoints or others or with_commits or granted or ended:
        totals = state.log.totals(state.revision)
        following = Following((), totals, checkpoints, [*with_commits, *others], granted, ended)
        await arrivals.take_over(state.name, following)


def _lacking(state: Namespace, there: Namespace) -> tuple[Sequence[Named], Sequence[Named]]:
    """The outcomes that the target lacks: those of commits that it lacks too, in order, and others."""
    with_commits: list[Named] = []
    others: list[Named] = []
    for one in _outcomes(state):
        if there.requests.has_seen(one.request):
            continue
        results = one.outcome.results
        is_commit = bool(results) and not isinstance(results[0], Checkpoint)
        (with_commits if is_commit and one.outcome.revision > there.revision else others).append(one)
    return sorted(with_commits, key=lambda one: (one.outcome.revision, one.request.sequence)), others


def _outcomes(state: Namespace) -> Iterator[Named]:
    for client, awaited, says, known in state.requests.all():
        for sequence, one in known.items():
            if sequence >= awaited:
                yield Named(RequestId(client, sequence, awaited if says else 0), one.fingerprint, one.outcome)


async def _settle(step: Step, target: MemoryStore, arrivals: Arrivals) -> None:
    """Have the target forget what the source has, and refuse what it does."""
    name, state = step.name, step.source
    if (await target.position(name)).floor < state.floor:
        await target.compact(name, state.floor)
    there = target.state(name)
    if lacks_requests(state.requests, there.requests):
        await arrivals.set_requests(name, together(there.requests, state.requests))
