"""How long a tiny read waits while a server does something large: what holds up the event loop shows here.

A process of its own gets a key of another namespace, over and over, and the longest that it waited is told beside what
the server did meanwhile, over a million keys in sqlite. The client and the probe take their part of the machine: the
row `nothing` tells what a wait means where the server has nothing to do.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import grpc

from benchmarks import filling
from benchmarks.options import Options
from benchmarks.peers import comity
from benchmarks.probe import Probe, probing
from benchmarks.report import Column, Report
from comity.v1 import (
    checkpoint_pb2,
    checkpoint_pb2_grpc,
    namespace_pb2,
    namespace_pb2_grpc,
    state_pb2,
    state_pb2_grpc,
    types_pb2,
)
from comity_server.limits import Limits
from comity_server.model import Fork, MakeCheckpoint
from comity_server.stores.sqlite.store import SqliteStore

BIG, BRANCH, LONG = "big", "branch", "long"  # many keys, a fork of it that changed, and many commits
BEFORE = types_pb2.Ref(checkpoint="before")
UNLIMITED = [("grpc.max_receive_message_length", -1)]


class Sizes(NamedTuple):
    keys: int
    changed: int
    commits: int
    quiet_seconds: float  # how long nothing happens, and how long is waited for what goes on after an answer


class Work(NamedTuple):
    what: str
    do: Callable[[], Awaitable[object]]


async def run(options: Options) -> Report:
    sizes = options.of(Sizes(1_000_000, 100_000, 100_000, 3.0), Sizes(5_000, 500, 500, 0.1))
    path = options.folder / "stalls.db"
    await _fill(path, sizes)
    times: list[tuple[str, float, float, float]] = []  # what, and when it began, was answered, and was over
    with comity.serve(f"sqlite:{path}", "--retention-commits", "0") as server:
        async with grpc.aio.insecure_channel(server.address, options=UNLIMITED) as channel:
            with probing(server.address) as probe:
                for work in _works(channel, sizes):
                    began = time.monotonic()
                    await work.do()
                    answered = time.monotonic()
                    await asyncio.sleep(sizes.quiet_seconds)
                    times.append((work.what, began, answered, time.monotonic()))
    return _report(probe, times)


def _report(probe: Probe, times: list[tuple[str, float, float, float]]) -> Report:
    report = Report()
    table = report.table(
        "a get of another namespace, meanwhile and for a while after",
        "meanwhile",
        Column("took", "s"),
        Column("gets", "count"),
        Column("p50", "s"),
        Column("longest", "s"),
    )
    for what, began, answered, ended in times:
        table.add(what, answered - began, *probe.during(began, ended))
    return report


async def _fill(path: Path, sizes: Sizes) -> None:
    """Write the file directly."""
    store = SqliteStore(path, Limits())
    await store.open()
    keys = list(map(filling.key, range(sizes.keys)))
    some = keys[:: sizes.keys // sizes.changed][: sizes.changed]
    others = keys[1 :: sizes.keys // sizes.changed][: sizes.changed]
    await filling.put(store, BIG, keys)
    await filling.commit(store, BIG, MakeCheckpoint(name=BEFORE.checkpoint))
    await filling.put(store, BIG, some, b"changed")
    await filling.commit(store, BRANCH, Fork(parent=BIG))
    await filling.put(store, BRANCH, others, b"other")
    await filling.put_singly(store, LONG, (filling.key(number % 1_000) for number in range(sizes.commits)))
    await store.close()


def _works(channel: grpc.aio.Channel, sizes: Sizes) -> list[Work]:
    """What the server does, in this order."""
    state = state_pb2_grpc.StateServiceStub(channel)
    checkpoints = checkpoint_pb2_grpc.CheckpointServiceStub(channel)
    namespaces = namespace_pb2_grpc.NamespaceServiceStub(channel)
    loads = [_load(number) for number in range(max(1, sizes.changed // filling.GROUP))]

    async def load() -> None:
        for request in loads:
            await state.Transact(request)

    async def list_all() -> None:
        request = state_pb2.ListRequest(namespace=BIG, page_size=filling.GROUP)
        while True:
            page = await state.List(request)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def diff_all() -> None:
        request = checkpoint_pb2.DiffRequest(namespace=BIG, base=BEFORE, page_size=filling.GROUP)
        while True:
            page = await checkpoints.Diff(request)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def restore() -> None:
        answer = await checkpoints.Restore(checkpoint_pb2.RestoreRequest(namespace=BIG, ref=BEFORE))
        assert answer.put == sizes.changed

    async def undo_watched() -> None:
        known = await namespaces.GetNamespace(namespace_pb2.GetNamespaceRequest(namespace=BIG))
        ref = types_pb2.Ref(revision=known.namespace.revision - 1)
        watch = state.Watch(state_pb2.WatchRequest(namespace=BIG, prefix=""))
        await watch.read()  # it is live
        restoring = asyncio.ensure_future(checkpoints.Restore(checkpoint_pb2.RestoreRequest(namespace=BIG, ref=ref)))
        events = 0
        while events < sizes.changed:
            answer = await watch.read()
            assert isinstance(answer, state_pb2.WatchResponse)
            events += sum(len(commit.events) for commit in answer.commits)
        watch.cancel()
        await restoring

    async def merge() -> None:
        answer = await namespaces.Merge(namespace_pb2.MergeRequest(namespace=BIG, fork=BRANCH))
        assert answer.merged

    async def delete(*names: str) -> None:
        for name in names:
            await namespaces.DeleteNamespace(namespace_pb2.DeleteNamespaceRequest(namespace=name))

    keys, changed = f"{sizes.keys:,}", f"{sizes.changed:,}"
    return [
        Work("nothing", lambda: asyncio.sleep(0)),
        Work(f"transactions of {filling.GROUP:,} puts, {len(loads)} of them", load),
        Work(f"all pages of a list of {keys} keys", list_all),
        Work(f"all pages of a diff of {changed} changed keys", diff_all),
        Work(
            f"a fork of {keys} keys", lambda: namespaces.Fork(namespace_pb2.ForkRequest(namespace=BIG, fork="another"))
        ),
        Work(f"a restore of {changed} changed keys", restore),
        Work("the same undone, and watched", undo_watched),
        Work(f"a merge of {changed} changed keys", merge),
        Work(
            f"a compaction of {sizes.commits:,} commits",
            lambda: namespaces.Compact(namespace_pb2.CompactRequest(namespace=LONG)),
        ),
        Work(f"the deletion of {keys} keys and their forks", lambda: delete("another", BRANCH, BIG)),
    ]


def _load(number: int) -> state_pb2.TransactRequest:
    request = state_pb2.TransactRequest(namespace="loaded")
    for place in range(number * filling.GROUP, (number + 1) * filling.GROUP):
        put = request.then.add().put
        put.key = filling.key(place)
        put.value = filling.VALUE
    return request
