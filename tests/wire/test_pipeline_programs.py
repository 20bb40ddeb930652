"""Pipelines beside a model: whatever is sent, in messages of any size, each operation sees just those before it."""

import asyncio
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from comity.v1 import state_pb2 as s
from tests import servers
from tests.redis_servers import RedisServer, program
from tests.wire.pipe_model import Model, plain
from tests.wire.pipes import connected, create, delete, get, increment, listing, piped, put, transact

SOAK = os.environ.get("COMITY_SOAK") == "1"
EXAMPLES = {"memory": 150, "sqlite": 50, "redis": 30}

KEYS = ["a", "a/", "a/b", "b", "é"]
keys = st.sampled_from(KEYS)
prefixes = st.sampled_from(["", "a", "a/", "b", "x"])
values = st.sampled_from([b"", b"x", b"1", b"-5", b"9007199254740990"])
deltas = st.sampled_from([0, 1, -1, 7, 2**53 - 1])
versions = st.sampled_from([0, 0, 1, 2, 3])
revisions = st.sampled_from([0, 0, 0, 1, 3, 6])


def a_get(key: str) -> s.Operation:
    return s.Operation(get=s.GetOperation(key=key))


def a_list(prefix: str) -> s.Operation:
    return s.Operation(list=s.ListOperation(prefix=prefix))


def a_delete(prefix: str) -> s.Operation:
    return s.Operation(delete=s.DeleteOperation(prefix=prefix))


def a_transaction(
    key: str, version: int, writes: Sequence[s.Operation], reads: Sequence[s.Operation]
) -> s.PipelineOperation:
    condition = s.Condition(key=key, version=version)
    return transact(conditions=[condition], then=[*reads, *writes, *reads], otherwise=reads)


reads = st.lists(st.builds(a_get, keys) | st.builds(a_list, prefixes), max_size=2)
writes: st.SearchStrategy[list[s.Operation]] = st.one_of(
    st.builds(lambda key, value: [s.Operation(put=s.PutOperation(key=key, value=value))], keys, values),
    st.builds(lambda key, delta: [s.Operation(increment=s.IncrementOperation(key=key, delta=delta))], keys, deltas),
    st.builds(lambda prefix: [a_delete(prefix)], prefixes),
    st.builds(
        lambda value: [s.Operation(put=s.PutOperation(key=key, value=value)) for key in KEYS[:3]],
        values,
    ),
    st.just([]),
)
operations = st.one_of(
    st.builds(get, keys),
    st.builds(lambda prefix: transact(then=[a_delete(prefix)]), prefixes),
    st.builds(put, keys, values, if_version=versions, if_revision=revisions, return_previous=st.booleans()),
    st.builds(create, keys, values),
    st.builds(delete, keys, if_version=versions, if_revision=revisions, return_previous=st.booleans()),
    st.builds(increment, keys, deltas),
    st.builds(listing, prefixes, page_size=st.sampled_from([0, 0, 1, 3])),
    st.builds(a_transaction, keys, versions, writes, reads),
)
programs = st.lists(st.lists(operations, min_size=1, max_size=8), min_size=1, max_size=12)


@pytest.fixture(scope="module", params=EXAMPLES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of a server, and how many programs to run."""
    url = "memory:"
    if request.param == "sqlite":
        folder: Path = tmp_path_factory.mktemp("state")
        url = f"sqlite:{folder / 'state.db'}"
    elif request.param == "redis":
        if program() is None:
            pytest.skip("there is no redis-server")
        redis: RedisServer = request.getfixturevalue("redis_server")
        url = f"{redis.url}?prefix=t-{uuid.uuid4().hex}"
    with servers.start("--store", url) as server:
        yield server.address, EXAMPLES[request.param]


async def run(channel: grpc.aio.Channel, messages: Sequence[Sequence[s.PipelineOperation]], client: str) -> None:
    model = Model()
    async with piped(channel, f"n-{uuid.uuid4().hex}", client=client) as pipe:
        answers = []
        for message in messages:
            answers += await pipe.send(*message)
        results = await pipe.all(answers)
        await pipe.done_writing()
        assert await pipe.ended() is None
    for operation, result in zip((each for message in messages for each in message), results, strict=True):
        assert plain(operation, result) == model.apply(operation), operation
    assert len(pipe.arrived) == len(results)


@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 120)
def test_each_operation_sees_just_those_before_it(store: tuple[str, int]) -> None:
    address, examples = store
    with asyncio.Runner() as runner:
        opened = connected(address)
        channel = runner.run(opened.__aenter__())

        @settings(
            max_examples=examples * 20 if SOAK else examples,
            derandomize=not SOAK,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )
        @given(programs, st.sampled_from(["", "c"]))
        def whatever_is_sent(messages: list[list[s.PipelineOperation]], client: str) -> None:
            for number, operation in enumerate((each for message in messages for each in message), start=1):
                operation.id = number
            runner.run(run(channel, messages, client))

        try:
            whatever_is_sent()
        finally:
            runner.run(opened.__aexit__(None, None, None))
