"""An agent that saves its state after each step: Comity's checkpoints beside those of langgraph-checkpoint-sqlite.

A state has 20 or 1,000 keys with values of 1 KB, of which a step changes one. Comity writes that key and names the
revision, over gRPC to a server whose store is a file of SQLite that is synced; langgraph's AsyncSqliteSaver, in this
process, saves the state as a whole. Then the state of the tenth step is read back, in full, by its name.
"""

import contextlib
import importlib
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import comity
from benchmarks import measure
from benchmarks.options import Options
from benchmarks.peers import comity as comity_server
from benchmarks.peers.process import Missing
from benchmarks.report import Column, Report, ratio

VALUE = b"v" * 1_000
BACK = 10  # the step to read


class Saver(Protocol):
    async def step(self, number: int, state: dict[str, bytes], changed: str) -> None:
        """Save a state, of which one key has changed since the step before."""

    async def back(self, number: int) -> dict[str, bytes]:
        """The state that was saved at a step."""


async def run(options: Options) -> Report:
    report = Report()
    steps = options.of(200, 12)
    table = report.table(
        f"{steps} steps, each saved",
        "keys",
        "what",
        Column("a step", "s"),
        Column("its p99", "s"),
        Column("time, to langgraph", "ratio"),
        Column("read back", "s"),
        Column("that time, to langgraph", "ratio"),
    )
    for keys in options.of((20, 1_000), (20,)):
        found: dict[str, tuple[float, float, float]] = {}
        async with contextlib.AsyncExitStack() as stack:
            savers: dict[str, Saver] = {}
            if options.wants("comity"):
                savers["comity sqlite"] = await stack.enter_async_context(_comity(options.folder / f"{keys}.db"))
            if options.wants("langgraph"):
                try:
                    savers["langgraph"] = await stack.enter_async_context(_langgraph(options.folder / f"{keys}.lg"))
                except Missing as missing:
                    report.note(str(missing))
            for name, saver in savers.items():
                found[name] = await _steps(saver, keys, steps)
        base = found.get("langgraph")
        for name, (p50, p99, back) in found.items():
            table.add(
                str(keys),
                name,
                p50,
                p99,
                ratio(p50, base[0] if base else None),
                back,
                ratio(back, base[2] if base else None),
            )
    return report


async def _steps(saver: Saver, keys: int, steps: int) -> tuple[float, float, float]:
    state = {f"key-{number:04}": VALUE for number in range(keys)}
    times = []
    for number in range(steps):
        changed = f"key-{number % keys:04}"
        state[changed] = b"%d" % number + VALUE
        began = time.perf_counter()
        await saver.step(number, state, changed)
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    found = await saver.back(BACK)
    took = time.perf_counter() - began
    assert len(found) == keys, "it is the whole state"
    assert found[f"key-{BACK % keys:04}"] == b"%d" % BACK + VALUE, "as it was then"
    return (*measure.percentiles(times[1:]), took)  # the first step has all keys to write


@contextlib.asynccontextmanager
async def _comity(path: Path) -> AsyncIterator[Saver]:
    with comity_server.serve(f"sqlite:{path}") as server:
        async with comity.connect(server.address, namespace=f"bench-{uuid.uuid4().hex}") as client:
            yield _Comity(client)


class _Comity:
    def __init__(self, client: comity.Client) -> None:
        self._client = client

    async def step(self, number: int, state: dict[str, bytes], changed: str) -> None:
        written = state if number == 0 else {changed: state[changed]}
        await self._client.transact(then=[comity.Put(key, value) for key, value in written.items()])
        await self._client.checkpoint(f"step-{number}")

    async def back(self, number: int) -> dict[str, bytes]:
        named = await self._client.get_checkpoint(f"step-{number}")
        return {entry.key: entry.data async for entry in self._client.list(revision=named.revision)}


@contextlib.asynccontextmanager
async def _langgraph(path: Path) -> AsyncIterator[Saver]:
    """Raises Missing."""
    try:
        module: Any = importlib.import_module("langgraph.checkpoint.sqlite.aio")
        base: Any = importlib.import_module("langgraph.checkpoint.base")
    except ImportError:
        raise Missing("langgraph is left out: langgraph-checkpoint-sqlite is not installed (extra bench)") from None
    async with module.AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        yield _Langgraph(saver, base.empty_checkpoint)


class _Langgraph:
    def __init__(self, saver: Any, empty: Any) -> None:
        self._saver = saver
        self._empty = empty
        self._config: Any = {"configurable": {"thread_id": "agent", "checkpoint_ns": ""}}
        self._made: list[Any] = []

    async def step(self, number: int, state: dict[str, bytes], changed: str) -> None:
        checkpoint = self._empty()
        checkpoint["channel_values"] = state
        metadata = {"source": "loop", "step": number, "parents": {}}
        self._config = await self._saver.aput(self._config, checkpoint, metadata, {changed: number})
        self._made.append(self._config)

    async def back(self, number: int) -> dict[str, bytes]:
        found = await self._saver.aget_tuple(self._made[number])
        return dict(found.checkpoint["channel_values"])
