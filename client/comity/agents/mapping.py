"""One function over many inputs, done by several agents: no input is lost with an agent, and none is done twice."""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final

from comity import codec
from comity.cleanup import clean_up
from comity.client import Client
from comity.errors import DecodeError, InvalidArgument
from comity.leases.lease import Lease
from comity.model import Entry, Event, Resync
from comity.recipes import Item, Queue
from comity.recipes.queue_keys import QueueKeys
from comity.tasks import is_task_cancelled
from comity.transaction import Transaction

from . import layout
from .agent import Agent
from .children import Group, Spec
from .feeding import INDEX_DIGITS, Feeding, Inputs, Size, index_of, place
from .outcome import Outcome
from .restarts import RestartLimit, Strategy
from .supervision import Supervision
from .text import described, text_of

__all__ = ["Function", "Mapping", "forget", "work"]

MESSAGE_LENGTH: Final = 1_000
AHEAD: Final = (
    10  # inputs for each agent that are in the store at a time, those included of which the outcome is to come
)
SPARE_RESTARTS: Final = 5  # of agents, beyond those that inputs account for with which agents die

log = logging.getLogger("comity.agents")

Function = Callable[[Agent, Any], Awaitable[Any]]


async def work(agent: Agent, id: str, function: Function, tries: int) -> None:
    """Do one input after another, until this is ended. What an agent of a map runs."""
    queue = _queue(agent.state, id, tries, agent.lease)
    results = layout.results(id)
    while True:
        item = await queue.get()
        try:
            await _do(agent, function, item, tries, results)
        except BaseException:
            await item.give_back(counts=False)
            raise


async def _do(agent: Agent, function: Function, item: Item, tries: int, results: str) -> None:
    """Do one input. Raises only what is no failure of the function: that its agent has lost its lease, and that what
    came of it cannot be written."""
    if (index := _index(item.entry)) is None:
        log.warning("%s was given what is no input of a map", agent.name)
        await item.nack(reason="it is no input of a map")
        return
    key = place(results, index)
    who = {"attempts": item.tries, "by": agent.name}
    failure: BaseException
    try:
        value = codec.from_json(codec.to_json(await function(agent, item.value["input"])), key=key)
    except asyncio.CancelledError as cancelled:
        if is_task_cancelled():
            raise
        failure = cancelled  # something that the function has waited for
    except Exception as error:  # noqa: BLE001 - whatever a function raises is its failure, also what Comity raised in it
        agent.check()
        failure = error
    else:
        try:
            await item.ack(_putting(key, {"value": value, **who}))
            return
        except InvalidArgument as error:  # it is too large
            failure = error
    if item.tries < tries:
        await item.nack(reason=described(failure)[:200])
        return
    log.warning("input %d has failed", index, exc_info=failure)
    await item.ack(_putting(key, {"error": _record(failure), **who}))


def _putting(key: str, record: dict[str, Any]) -> Callable[[Transaction], None]:
    return lambda tx: tx.put(key, record)


def _index(entry: Entry) -> int | None:
    """Which input it is; None: none, but what somebody else has put among them."""
    try:
        index = entry.value["index"]
        entry.value["input"]
    except (DecodeError, LookupError, TypeError):
        return None
    return index if isinstance(index, int) and 0 <= index < 10**INDEX_DIGITS else None


def _record(error: BaseException) -> dict[str, str]:
    return {"type": type(error).__name__, "message": (text_of(error) or type(error).__name__)[:MESSAGE_LENGTH]}


def _queue(state: Client, id: str, tries: int, lease: Lease | None = None) -> Queue:
    return Queue(state, layout.inputs(id), tries=tries, lease=lease)


class Mapping:
    """One map, as the supervisor that runs it sees it.

    tries: how often an input is tried.
    lease: the supervisor's.
    """

    def __init__(self, state: Client, id: str, tries: int, lease: Lease) -> None:
        self._state = state
        self._id = id
        self._tries = tries
        self._lease = lease
        self._queue = _queue(state, id, tries)
        self._results = layout.results(id)
        self._size = layout.size(id)
        self._dead = QueueKeys(self._queue.name).dead_letters
        self._feeding = Feeding(state, id, self._queue, lease)

    async def run(
        self, supervision: Supervision, specs: Sequence[Spec], inputs: Inputs, *, keep: bool
    ) -> AsyncGenerator[Outcome]:
        """Have it done by these agents, and give the outcomes as they come. keep: what the store has of it stays."""
        limit = RestartLimit(len(specs) * self._tries + SPARE_RESTARTS, math.inf)
        stuck: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def failed(error: BaseException) -> None:
            if not stuck.done():
                stuck.set_exception(error)

        group = Group(Strategy.ONE_FOR_ONE, limit, failed)
        outcomes = self._outcomes()
        waits: set[asyncio.Future[Any]] = {stuck}
        try:
            for spec in specs:
                await supervision.spawn(spec, group)
            feeding = asyncio.create_task(self._feeding.run(inputs, AHEAD * len(specs)))
            waits |= {feeding, asyncio.create_task(self._bury())}
            while True:
                following = asyncio.ensure_future(anext(outcomes, None))
                waits.add(following)
                while not following.done():
                    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    for one in done - {following}:
                        one.result()
                    waits -= done
                if (outcome := following.result()) is None:
                    await feeding  # there may be more inputs than a former supervisor had
                    break
                limit.reset()
                yield outcome
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            await outcomes.aclose()
            await clean_up(supervision.dismiss(group))
            if not keep:
                await clean_up(forget(self._state, self._id))

    async def _outcomes(self) -> AsyncGenerator[Outcome]:
        """The outcomes as they come, each once, until there is one for each input."""
        size = Size(0, False)
        seen: set[int] = set()
        async with self._state.watch(layout.mapping(self._id), initial=True) as watch:
            async for item in watch:
                for entry in sorted(_entries(item), key=lambda each: each.key != self._size):
                    if entry.key == self._size:
                        size = Size.of(entry)
                        self._feeding.fed(size.fed)
                        continue
                    index = index_of(entry.key, self._results)
                    if index is not None and index < size.fed and index not in seen:
                        await self._feeding.compared(index)
                        seen.add(index)
                        self._feeding.seen()
                        yield Outcome.of(index, entry)
                if size.is_all and len(seen) >= size.fed:
                    return

    async def _bury(self) -> None:
        """Turn dead letters into outcomes: inputs with which their agents died, each time that they were tried."""
        async with self._state.watch(self._dead, initial=True) as watch:
            async for item in watch:
                for entry in _entries(item):
                    if (index := _index(entry)) is not None:
                        await self._state.transact(self._burying(entry, index), guard=self._lease)

    def _burying(self, entry: Entry, index: int) -> Callable[[Transaction], None]:
        key = place(self._results, index)
        error = {"type": "DEAD", "message": f"the agent that had it died or lost its lease, {self._tries} times"}

        def bury(tx: Transaction) -> None:
            tx.delete(entry.key)
            tx.put(key, {"error": error, "attempts": self._tries, "by": ""})

        return bury


async def forget(state: Client, id: str) -> None:
    """Delete all that is in the store of a map."""
    await state.delete(prefix=layout.mapping(id))
    await state.delete(prefix=QueueKeys(layout.inputs(id)).prefix)


def _entries(item: Event | Resync) -> tuple[Entry, ...]:
    if isinstance(item, Resync):
        return item.entries
    return (item.entry,) if item.is_put else ()
