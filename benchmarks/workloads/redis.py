"""Compare-and-set over Redis by 1, 8 and 64 writers: Comity beside redis-py, with WATCH and with a script.

All of them write to one redis-server, with appendfsync always and then everysec, in rounds that take turns: each
writer to a key of its own, or all to one key. Comity is measured as a server, over gRPC, and as its store alone in the
process of the writers, which is where redis-py is too. Ratios are of the rates in the same round: their median, and
between what half of them are. The history, the watches and the request ids that Comity keeps, redis-py does not.
"""

import asyncio
import contextlib
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple, Protocol

import grpc
import redis.asyncio as redis_py
from redis.exceptions import WatchError

from benchmarks.options import Options
from benchmarks.peers import comity, redis
from benchmarks.peers.process import Missing
from benchmarks.report import Column, Report, Table, ratio
from comity.status import error_from_status
from comity.v1 import state_pb2, state_pb2_grpc
from comity_server.committer import Committer
from comity_server.limits import Limits
from comity_server.model import Condition, Put, PutResult, Test, Transaction
from comity_server.record import VERSION
from comity_server.stores.url import open_store
from comity_server.telemetry.tally import Tally

VALUE: Final = b"v" * 256
POLICIES: Final = ("always", "everysec")
OWN, ONE = "own", "one"  # a key for each writer, or one for all
SCRIPT: Final = """
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if version ~= tonumber(ARGV[1]) then
  return {0, version}
end
redis.call('HSET', KEYS[1], 'version', version + 1, 'value', ARGV[2])
return {1, version + 1}
"""
SERVER, STORE, WATCH, LUA = "comity", "its store", "WATCH", "script"


class Found(NamedTuple):
    """How an attempt ended: whether the key was written, and the version that it has now, if that is known."""

    done: bool
    version: int | None


class Peer(Protocol):
    reads: bool  # the version before it writes, so that it need not be told one

    async def put(self, key: str, version: int | None) -> Found:
        """Write a key if it has this version. None: the one that is read."""


class Case(NamedTuple):
    key: str
    writers: int


class Cell(NamedTuple):
    """What one peer did in one round."""

    rate: float  # keys written in a second
    attempts: float  # for each that was written
    calls: float  # of scripts, likewise
    commands: float  # that Redis ran, likewise
    busy: float  # seconds of processor time that Redis took, likewise


async def run(options: Options) -> Report:
    report = Report()
    rounds, seconds = options.of((7, 0.3), (2, 0.02))
    cases = [*(Case(OWN, writers) for writers in (1, 8, 64)), *(Case(ONE, writers) for writers in (8, 64))]
    for policy in POLICIES:
        try:
            found = await _measure(options, policy, cases, rounds, seconds)
        except Missing as missing:
            report.note(str(missing))
            return report
        rates = report.table(
            f"compare-and-set, appendfsync {policy}: the median of {rounds} rounds of {seconds:g} s",
            "key",
            Column("writers", "count"),
            "what",
            Column("rate", "per second"),
            Column("to one writer", "ratio"),
            *(Column(f"to {WATCH}", "ratio"), f"{WATCH}, half"),
            *(Column(f"to {LUA}", "ratio"), f"{LUA}, half"),
            Column("attempts", "ratio"),
        )
        costs = report.table(
            f"what each costs Redis, appendfsync {policy}",
            "key",
            Column("writers", "count"),
            "what",
            Column("written a script call", "ratio"),
            Column("commands", "ratio"),
            Column("processor time", "s"),
        )
        for case in cases:
            _fill(rates, costs, case, found)
    return report


Rounds = dict[Case, dict[str, list[Cell]]]


def _fill(rates: Table, costs: Table, case: Case, found: Rounds) -> None:
    alone = {name: _median(cells, "rate") for name, cells in found[Case(OWN, 1)].items()}
    for name, cells in found[case].items():
        rate, calls = _median(cells, "rate"), _median(cells, "calls")
        rates.add(
            case.key,
            case.writers,
            name,
            rate,
            ratio(rate, alone[name]) if case.key == OWN else None,
            *_compared(cells, found[case][WATCH]),
            *_compared(cells, found[case][LUA]),
            _median(cells, "attempts"),
        )
        costs.add(case.key, case.writers, name, ratio(1, calls), _median(cells, "commands"), _median(cells, "busy"))


def _median(cells: Sequence[Cell], name: str) -> float:
    return float(statistics.median(getattr(cell, name) for cell in cells))


def _compared(cells: Sequence[Cell], others: Sequence[Cell]) -> tuple[float | None, str]:
    """The rates to those of another peer, round by round: the median, and between what half of them are."""
    ratios = [cell.rate / other.rate for cell, other in zip(cells, others, strict=True) if other.rate]
    if len(ratios) < 2:
        return (ratios[0], "-") if ratios else (None, "-")
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, f"{low:.2f}-{high:.2f}"


async def _measure(options: Options, policy: str, cases: Sequence[Case], rounds: int, seconds: float) -> Rounds:
    """Raises Missing."""
    found: Rounds = {}
    # Rewrites of the append-only file would fall on whoever is measured just then.
    settings = ("--appendfsync", policy, "--auto-aof-rewrite-percentage", "0")
    with redis.serve(options.folder / policy, *settings) as server:
        async with contextlib.AsyncExitStack() as stack:
            client = redis_py.Redis(port=server.port)
            stack.push_async_callback(client.aclose)
            peers: dict[str, Peer] = {
                SERVER: await stack.enter_async_context(_server(f"redis://127.0.0.1:{server.port}")),
                STORE: await stack.enter_async_context(_store(f"redis://127.0.0.1:{server.port}?prefix=store")),
                WATCH: _Watch(client),
                LUA: _Lua(client),
            }
            for case in cases:
                for _ in range(rounds):
                    for name, peer in peers.items():
                        cell = await _round(peer, case, seconds, server)
                        found.setdefault(case, {}).setdefault(name, []).append(cell)
    return found


async def _round(peer: Peer, case: Case, seconds: float, server: redis.Redis) -> Cell:
    """Have so many writers write at a time. Each first finds out the version of its key."""
    done = attempts = 0
    end = float("inf")

    async def write(key: str, version: int | None) -> None:
        nonlocal done, attempts
        while time.perf_counter() < end:
            found = await peer.put(key, version)
            version = None if peer.reads and case.key == ONE else found.version
            done += found.done
            attempts += 1

    keys = [f"key-{number if case.key == OWN else 'of-all'}" for number in range(case.writers)]
    versions = [(await peer.put(key, 0)).version for key in keys]
    before = _figures(server)
    began = time.perf_counter()
    end = began + seconds
    async with asyncio.TaskGroup() as group:
        for key, version in zip(keys, versions, strict=True):
            group.create_task(write(key, version))
    took = time.perf_counter() - began
    calls, commands, busy = (now - then for now, then in zip(_figures(server), before, strict=True))
    each = max(done, 1)
    return Cell(done / took, attempts / each, calls / each, commands / each, busy / each)


def _figures(server: redis.Redis) -> tuple[float, float, float]:
    """How often scripts were called so far, how many commands run, and how long the processor was busy."""
    calls = server.info("commandstats").get("cmdstat_evalsha", "calls=0,").partition(",")[0]
    processor = server.info("cpu")
    busy = float(processor["used_cpu_sys"]) + float(processor["used_cpu_user"])
    return float(calls.removeprefix("calls=")), float(server.info("stats")["total_commands_processed"]), busy


@contextlib.asynccontextmanager
async def _server(url: str) -> AsyncIterator[Peer]:
    with comity.serve(url, "--log-level", "error") as server:  # it is known that everysec may lose something
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield _Server(channel)


class _Server:
    """A put with `if_version`, over gRPC."""

    reads = False

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._put = state_pb2_grpc.StateServiceStub(channel).Put
        self._namespace = f"bench-{uuid.uuid4().hex}"

    async def put(self, key: str, version: int | None) -> Found:
        request = state_pb2.PutRequest(namespace=self._namespace, key=key, value=VALUE, if_version=version)
        try:
            return Found(True, (await self._put(request)).version)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ABORTED:
                raise
            refusal = error_from_status(error.code(), error.details(), error.trailing_metadata())
            return Found(False, int(refusal.metadata["version"]))


@contextlib.asynccontextmanager
async def _store(url: str) -> AsyncIterator[Peer]:
    store = open_store(url, Limits())
    await store.open()
    committer = Committer(store, Tally())
    try:
        yield _Store(committer)
    finally:
        await committer.drain()
        await store.close()


class _Store:
    """The same, without a server: what is behind the services, in this process."""

    reads = False

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._namespace = f"bench-{uuid.uuid4().hex}"

    async def put(self, key: str, version: int | None) -> Found:
        condition = Condition(key, Test.VERSION, version or 0)
        write = Transaction(conditions=(condition,), then=(Put(key, VALUE),))
        outcome = await self._committer.submit(self._namespace, write)
        if outcome.committed:
            (result,) = outcome.results
            assert isinstance(result, PutResult)
            return Found(True, result.version)
        current = outcome.failed[0].current
        return Found(False, current[VERSION] if current else 0)


class _RedisPy:
    """redis-py, in which each writer has a connection of its own. A key is a hash of its version and its value."""

    def __init__(self, client: "redis_py.Redis") -> None:
        self._redis = client
        self._prefix = f"redis-py:{uuid.uuid4().hex}"

    def _name(self, key: str) -> str:
        return f"{self._prefix}:{key}"


class _Watch(_RedisPy):
    """WATCH, HGET, MULTI, HSET, EXEC."""

    reads = True

    async def put(self, key: str, version: int | None) -> Found:
        name = self._name(key)
        async with self._redis.pipeline() as pipeline:
            await pipeline.watch(name)
            found = int(await pipeline.hget(name, "version") or 0)
            if version not in (None, found):
                return Found(False, found)
            pipeline.multi()  # type: ignore[no-untyped-call]
            pipeline.hset(name, mapping={"version": found + 1, "value": VALUE})
            try:
                await pipeline.execute()
            except WatchError:
                return Found(False, None)
        return Found(True, found + 1)


class _Lua(_RedisPy):
    """A script by its digest."""

    reads = False

    def __init__(self, client: "redis_py.Redis") -> None:
        super().__init__(client)
        self._script = client.register_script(SCRIPT)

    async def put(self, key: str, version: int | None) -> Found:
        done, found = await self._script(keys=[self._name(key)], args=[version or 0, VALUE])
        return Found(bool(done), found)
