"""What the functions of a workflow are given: what is known of the run, and a hand to write with."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from comity import codec
from comity.agents.awaited import Awaited
from comity.agents.desk import Desk
from comity.agents.handoff import Handoff
from comity.agents.layout import Role
from comity.arguments import expect
from comity.client import Client
from comity.transaction import Transaction

if TYPE_CHECKING:
    from comity.leases.guard import LeaseGuard
    from comity.leases.lease import Lease

    from .records import Layout

__all__ = ["Effect", "Results", "RunContext", "RunKeys", "StepContext"]

Effect = Callable[[Transaction], Awaitable[object] | object]


class Results(Mapping[str, Any]):
    """The results of steps, by their names. Each look makes a new copy, so that what is done to it stays there.

    Holds what comes before in the plan: not what a branch beside this one has done, nor what was skipped.
    """

    def __init__(self, known: Mapping[str, bytes]) -> None:
        self._known = known

    def __getitem__(self, name: str) -> Any:
        return json.loads(self._known[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return repr(dict(self))


class RunContext:
    """What conditions are given, and what `over` is: `ctx.input`, `ctx.results["triage"]`.

    workflow, run_id: which run it is.
    results: of the steps before this one in the plan.
    client: the client that the run is run with, to read with. What is written with it by itself is neither guarded nor
        taken back: see `StepContext`.
    """

    def __init__(self, client: Client, layout: Layout, given: bytes, results: Results) -> None:
        self.client = client
        self.workflow = layout.workflow
        self.run_id = layout.run_id
        self.results = results
        self._input = given

    @property
    def input(self) -> Any:
        """What the run was begun with, a new copy each time."""
        return json.loads(self._input)


class StepContext(RunContext):
    """What a step is given.

    A step is tried again if it fails, or if its runner is killed before its outcome is in the store; so what it does
    may be done twice, but for what it writes by `put`, `delete`, `increment` and `transact` of this: that is applied in
    the transaction that says that the step is done, and so exactly once. It is not seen before, also not by the step.

    attempt: which attempt this is, from 1; those of runners that were killed count.
    item, index: of an `each`: the item, and its place from 0. None of other steps.
    guard: that of the runner's lease, for writes of the step's own: `ctx.client.put(…, guard=ctx.guard)`. Its `fence`
        grows with each runner of the run, for what is outside of the store.
    state: keys of the run's own, written at once: what a step that takes long has reached, for its next attempt.
    """

    def __init__(
        self,
        client: Client,
        layout: Layout,
        given: bytes,
        results: Results,
        *,
        step: str,
        attempt: int,
        lease: Lease,
        awaited: Awaited,
        item: Any = None,
        index: int | None = None,
    ) -> None:
        super().__init__(client, layout, given, results)
        self.step = step
        self.attempt = attempt
        self.item = item
        self.index = index
        self.guard: LeaseGuard = lease.guard
        self.state = RunKeys(client, layout.state, lease)
        self._lease = lease
        self._awaited = awaited
        self._sender = layout.sender
        self._handoffs = 0
        self._effects: list[Effect] = []
        self._ended = False

    def put(self, key: str, value: object, *, content_type: str | None = None) -> None:
        """Write a key once the step is done. The value is encoded now. Raises what `Transaction.put` raises."""
        expect("key", str, key)
        data, kind = codec.encode(value, content_type)
        self._add(lambda tx: tx.put(key, data, content_type=kind))

    def delete(self, key: str | None = None, *, prefix: str | None = None) -> None:
        """Delete a key, or all keys under a prefix, once the step is done. Raises what `Transaction.delete` raises."""
        if (key is None) == (prefix is None):
            raise TypeError("a delete takes either a key or a prefix")
        self._add(lambda tx: tx.delete(key, prefix=prefix))

    def increment(self, key: str, by: int = 1) -> None:
        """Add to a whole number once the step is done. Raises TypeError for what is none."""
        expect("key", str, key)
        expect("by", int, by)
        self._add(lambda tx: tx.increment(key, by))

    def transact(self, function: Effect) -> None:
        """Read and write once the step is done: the function is called with a `Transaction`, as that of
        `Client.transact`, and may be called several times. If it raises, the step has failed, and nothing is written.
        """
        if not callable(function):
            raise TypeError(f"function must take a Transaction, not be of type {type(function).__name__}")
        self._add(function)

    async def handoff(
        self, to: str | Role, context: object, *, id: str | None = None, priority: int = 0, message: str = ""
    ) -> Handoff:
        """Hand work over to an agent, as `Agent.handoff` does, now: `await (await ctx.handoff("ann", …)).result()`.

        A later attempt of the step finds the one that was sent, and what came of it, and sends none again.

        id: which of the step's handoffs it is; unless given the first one is "1", the second one "2". A handoff that
            was refused stays so: a step that is to try again with another one gives another id.

        All else is as of `Agent.handoff`. What came of it is kept until the run is deleted.
        """
        if self._ended:
            raise RuntimeError("the step has ended: use what it is given only inside of the step")
        self._handoffs += 1
        place = self.step if self.index is None else f"{self.step}:{self.index}"
        desk = Desk(self.client, f"{self._sender}{place}", lambda: self._lease, self._awaited)
        id = str(self._handoffs) if id is None else id
        return await desk.handoff(to, context, id=id, priority=priority, also=None, message=message)

    def _add(self, effect: Effect) -> None:
        if self._ended:
            raise RuntimeError("the step has ended: use what it is given only inside of the step")
        self._effects.append(effect)

    def _end(self) -> list[Effect]:
        """What is to be done in the transaction that ends the step."""
        self._ended = True
        return self._effects


class RunKeys:
    """Keys of a run's own: `state/…` under its prefix. Written at once, and only while its runner has the run.

    All methods raise what those of `Client` raise, and LeaseLost.
    """

    def __init__(self, client: Client, prefix: str, lease: Lease) -> None:
        self._client = client
        self._lease = lease
        self.prefix = prefix

    async def get(self, name: str) -> Any:
        """The value of a key; None if it is absent."""
        entry = await self._client.get(self._key(name))
        return None if entry is None else entry.value

    async def put(self, name: str, value: object) -> None:
        """Write a key."""
        await self._client.put(self._key(name), value, guard=self._lease)

    async def delete(self, name: str) -> None:
        """Delete a key. That it is absent is no error."""
        await self._client.delete(self._key(name), guard=self._lease)

    async def list(self, prefix: str = "") -> dict[str, Any]:
        """The values under a prefix, by their names."""
        entries = self._client.list(self._key(prefix, empty=True))
        return {entry.key.removeprefix(self.prefix): entry.value async for entry in entries}

    def _key(self, name: str, *, empty: bool = False) -> str:
        expect("name", str, name)
        if not name and not empty:
            raise ValueError("name must not be empty")
        return self.prefix + name
