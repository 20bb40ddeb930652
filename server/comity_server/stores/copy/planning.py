"""What is to be done for a family of namespaces: a namespace, what it was forked from, and what was forked from it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from comity_server.stores.copy.comparing import ancestors, compare, shows_the_same
from comity_server.stores.memory.namespace import Namespace
from comity_server.stores.memory.parts import together
from comity_server.stores.memory.requests import Requests
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.transfer import Arrival

Action = Literal["copy", "replace", "continue", "nothing", "conflict"]


@dataclass
class Step:
    """What is done for one namespace."""

    name: str
    action: Action
    source: Namespace
    reason: str = ""  # of a conflict, or why it is replaced or goes on
    target: Namespace | None = None  # what is there
    requests: Requests | None = None  # what is remembered there by the name
    arrival: Arrival | None = None


class Plan:
    """The steps for a family, and in `arrivals` what comes to the target, none before what it was forked from.

    Args:
        source: has the family.
        target: is asked what it has.
        overwrite: whether others there are replaced.
        forgetful: names of namespaces there that are to be replaced, since they lack what forks are to share.
    """

    def __init__(
        self, source: MemoryStore, target: MemoryStore, *, overwrite: bool, forgetful: Collection[str] = ()
    ) -> None:
        self.steps: list[Step] = []
        self.arrivals: list[Arrival] = []
        self.lacking: set[str] = set()  # namespaces there that lack what forks are to share
        self._forgetful = forgetful
        self._source = source
        self._target = target
        self._overwrite = overwrite
        self._done: dict[Namespace, Step] = {}
        self._shared: dict[Namespace, Arrival | Namespace] = {}  # deleted ones of the source, by what is there for them

    async def add(self, name: str) -> Step:
        """Decide for a namespace. What it was forked from, if it exists, was added before."""
        state = self._source.state(name)
        await self._target.position(name)
        there = self._target.namespaces_by_name.get(name)
        requests = self._target.state(name).requests
        step = await self._decide(name, state, there)
        if step.action == "conflict" and self._overwrite and there is not None:
            step = Step(name, "replace", state, step.reason)
        step.target, step.requests = there, requests
        if step.action in ("copy", "replace"):
            self._bring(step)
        self._done[state] = step
        self.steps.append(step)
        return step

    async def _decide(self, name: str, state: Namespace, there: Namespace | None) -> Step:
        if there is None:
            return Step(name, "copy", state)
        if name in self._forgetful:
            return Step(name, "conflict", state, "it lacks what a fork is to share")
        if reason := self._other_ancestor(state, there):
            return Step(name, "conflict", state, reason)
        found = await compare(self._source, self._target, name)
        if found.other:
            return Step(name, "conflict", state, found.other)
        if state.parent is not None and there.parent is not None:
            self._shared.setdefault(state.parent.namespace, there.parent.namespace)
        return Step(name, "continue" if found.behind else "nothing", state, found.behind)

    def _other_ancestor(self, state: Namespace, there: Namespace) -> str:
        """Why a fork at the target is not one of what it is to be a fork of: which would not keep what it shares."""
        of, its = ancestors(state, there)
        if of is None:
            return ""
        step = self._done[of]
        if step.arrival is not None:
            return f"it is a fork of another {of.name} than the one that comes"
        if its is None or step.target is None or its.id != step.target.id:
            return f"it is a fork of another {of.name}"
        return ""

    def _bring(self, step: Step) -> None:
        """Have the namespace come, and what it shares, or find out why it cannot."""
        state = step.source
        above: Arrival | Namespace | None = None
        if state.parent is not None:
            of, revision, _ = state.parent
            above = self._parent_there(of, revision)
            if above is None:
                step.action = "conflict"
                step.reason = f"what it shares with {of.name}, as of revision {revision}, is not there (any more)"
                return
        requests = state.requests if step.requests is None else together(step.requests, state.requests)
        step.arrival = self._arrive(state, above, requests)

    def _parent_there(self, state: Namespace, revision: int) -> Arrival | Namespace | None:
        """What a fork at a revision of some namespace is a fork of at the target; None: that cannot be."""
        if not state.deleted:
            step = self._done[state]
            if step.arrival is not None:
                return step.arrival
            if step.action == "conflict" or step.target is None:
                return None
            # What the target is going to have as well, when it goes on, it has.
            if revision > step.target.revision or shows_the_same(state, step.target, revision):
                return step.target
            self.lacking.add(state.name)
            return None
        there = self._shared.get(state)
        if isinstance(there, Arrival) or (there is not None and shows_the_same(state, there, revision)):
            return there
        above: Arrival | Namespace | None = None
        if state.parent is not None:
            above = self._parent_there(state.parent.namespace, state.parent.revision)
            if above is None:
                return None
        made = self._shared[state] = self._arrive(state, above, state.requests)
        return made

    def _arrive(self, state: Namespace, above: Arrival | Namespace | None, requests: Requests) -> Arrival:
        arrival = Arrival(state, above, requests)
        self.arrivals.append(arrival)
        return arrival

    @property
    def replaced(self) -> Sequence[str]:
        """The namespaces of the target that go."""
        return [step.name for step in self.steps if step.action == "replace"]
