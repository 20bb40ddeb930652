"""The policy is read again when it changes: what is granted can be done at once, and what is taken away ends."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from click.testing import CliRunner
from google.protobuf.duration_pb2 import Duration

from comity.v1 import lease_pb2 as le
from comity.v1 import lease_pb2_grpc, state_pb2_grpc
from comity.v1 import state_pb2 as s
from comity_server.access import files
from comity_server.serve import command
from tests.access.principals import Rule, replaced, shown, write_policy, write_tokens
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Refusal, read_refusal
from tests.wire.inprocess import run
from tests.wire.pipes import get, piped, put

TEAM = "team"
OK = grpc.StatusCode.OK
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
ALL: Rule = {"principals": ["*"], "namespaces": ["*"], "allow": ["read", "write"]}
ROOT: Rule = {"principals": ["root"], "namespaces": ["*"], "allow": ["read", "write", "admin"]}


def rule(*prefixes: str, allow: str = "read write", principals: str = "ann") -> Rule:
    return {
        "principals": [principals],
        "namespaces": [TEAM],
        "prefixes": list(prefixes or [""]),
        "allow": allow.split(),
    }


class Ruled:
    """A server, and its policy."""

    def __init__(self, address: str, file: Path) -> None:
        self.address = address
        self.file = file
        self._said = 0

    async def says(self, state: Any, *rules: Rule) -> None:
        """Put another policy in force, beside which root may do everything."""
        self._said += 1
        mark = f"said-{self._said}"  # where this policy alone allows something
        write_policy(self.file, [ROOT, {"principals": ["witness"], "namespaces": [mark], "allow": ["read"]}, *rules])

        async def holds() -> bool:
            return await code(state, "witness", namespace=mark) is OK

        await until(holds)


@pytest.fixture
async def ruled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ruled]:
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(files, "SETTLE_SECONDS", 0.0)
    tokens = write_tokens(tmp_path / "tokens", ["ann", "bob", "root", "witness"])
    policy = write_policy(tmp_path / "policy.toml", [ROOT])
    async with run(tokens=tokens, policy=policy) as running:
        yield Ruled(running.server.addresses[0], policy)


@pytest.fixture
async def channel(ruled: Ruled) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(ruled.address) as channel:
        yield channel


@pytest.fixture
def state(channel: grpc.aio.Channel) -> Any:
    return state_pb2_grpc.StateServiceStub(channel)


async def code(state: Any, principal: str, key: str = "in/key", namespace: str = TEAM) -> grpc.StatusCode:
    """What a principal is answered who reads a key."""
    try:
        await state.Get(s.GetRequest(namespace=namespace, key=key), timeout=TIMEOUT, metadata=shown(principal))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return OK


async def end_of(stream: Any) -> Refusal:
    """Read a stream to its end, which must be a refusal."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    raise AssertionError("the stream ended without an error")


async def refused(problem: str, change: Callable[[], object]) -> None:
    """Make a change, and wait for the line that says what is wrong with it."""
    with structlog.testing.capture_logs() as logs:
        change()
        await until(lambda: any(problem in line.get("error", "") for line in logs))


async def watching(state: Any, principal: str, prefix: str = "in/") -> Any:
    """A watch that is live."""
    request = s.WatchRequest(namespace=TEAM, prefix=prefix)
    stream = state.Watch(request, timeout=TIMEOUT, metadata=shown(principal))
    assert (await stream.read()).created
    return stream


async def test_what_is_granted_holds_at_once_and_a_watch_ends_when_it_is_taken_away(ruled: Ruled, state: Any) -> None:
    await ruled.says(state)
    assert await code(state, "ann") is PERMISSION_DENIED
    await ruled.says(state, rule("in/"), rule("in/", principals="bob"))
    anns, bobs = await watching(state, "ann"), await watching(state, "bob")
    await ruled.says(state, rule("in/", allow="write"), rule("in/", "out/", allow="read", principals="bob"))
    refused = await end_of(anns)
    assert (refused.code, refused.reason) == (PERMISSION_DENIED, "PERMISSION_DENIED")
    assert refused.metadata == {"principal": "ann", "namespace": TEAM, "access": "READ", "prefix": "in/"}
    # Another's, of whom enough is left, goes on.
    await state.Put(s.PutRequest(namespace=TEAM, key="in/key"), timeout=TIMEOUT, metadata=shown("ann"))
    assert (await bobs.read()).commits
    bobs.cancel()


async def test_a_watch_of_a_key_ends_and_may_begin_again(ruled: Ruled, state: Any) -> None:
    await ruled.says(state, rule("in/"))
    request = s.WatchRequest(namespace=TEAM, key="in/key")
    stream = state.Watch(request, timeout=TIMEOUT, metadata=shown("ann"))
    assert (await stream.read()).created
    await ruled.says(state, rule("out/"))
    assert (await end_of(stream)).metadata["key"] == "in/key"
    await ruled.says(state, rule("in/"))
    again = await watching(state, "ann")
    again.cancel()


async def test_a_watch_that_nobody_reads_ends_too(ruled: Ruled, state: Any) -> None:
    await ruled.says(state, rule())
    stream = await watching(state, "ann", "")
    for _ in range(8):
        value = bytes(512 * 1024)
        await state.Put(s.PutRequest(namespace=TEAM, key="large", value=value), timeout=TIMEOUT, metadata=shown("root"))
    await ruled.says(state)
    assert (await end_of(stream)).code is PERMISSION_DENIED


async def test_a_pipeline_goes_on_with_what_is_left_and_ends_with_nothing_left(
    ruled: Ruled, channel: grpc.aio.Channel, state: Any
) -> None:
    await ruled.says(state, rule("in/", "out/"))
    async with piped(channel, TEAM, metadata=shown("ann")) as pipe:
        assert [result.code for result in await pipe.ask(put("in/key"), put("out/key"), get("out/key"))] == [0, 0, 0]
        await ruled.says(state, rule("in/"))
        denied = PERMISSION_DENIED.value[0]
        results = await pipe.ask(put("in/key"), put("out/key"), get("out/key"))
        assert [result.code for result in results] == [0, denied, denied]
        await ruled.says(state, rule("in/", principals="bob"))
        refused = await pipe.ended()
    assert refused is not None
    assert (refused.code, refused.metadata["principal"]) == (PERMISSION_DENIED, "ann")


async def test_renewals_end_when_nothing_may_be_written_any_more(
    ruled: Ruled, channel: grpc.aio.Channel, state: Any
) -> None:
    await ruled.says(state, rule("in/"))
    leases: Any = lease_pb2_grpc.LeaseServiceStub(channel)
    request = le.GrantLeaseRequest(namespace=TEAM, ttl=Duration(seconds=60))
    lease = (await leases.GrantLease(request, timeout=TIMEOUT, metadata=shown("ann"))).lease
    stream = leases.KeepAlive(timeout=TIMEOUT, metadata=shown("ann"))
    renewal = le.KeepAliveRequest(namespace=TEAM, lease_id=lease.id)
    await stream.write(renewal)
    assert (await stream.read()).ttl.seconds > 0
    await ruled.says(state, rule("in/", allow="read"))
    assert (await end_of(stream)).metadata["access"] == "WRITE"
    # The lease lives, and who gets the permission again goes on with it.
    await ruled.says(state, rule("out/"))
    again = leases.KeepAlive(timeout=TIMEOUT, metadata=shown("ann"))
    await again.write(renewal)
    assert (await again.read()).ttl.seconds > 0
    again.cancel()


async def test_who_may_no_longer_write_all_renews_no_leases_of_others(
    ruled: Ruled, channel: grpc.aio.Channel, state: Any
) -> None:
    await ruled.says(state, rule())
    leases: Any = lease_pb2_grpc.LeaseServiceStub(channel)
    request = le.GrantLeaseRequest(namespace=TEAM, ttl=Duration(seconds=60))
    lease = (await leases.GrantLease(request, timeout=TIMEOUT, metadata=shown("root"))).lease
    stream = leases.KeepAlive(timeout=TIMEOUT, metadata=shown("ann"))
    renewal = le.KeepAliveRequest(namespace=TEAM, lease_id=lease.id)
    await stream.write(renewal)
    assert (await stream.read()).ttl.seconds > 0
    await ruled.says(state, rule("in/"))
    await stream.write(renewal)
    assert (await end_of(stream)).metadata["lease_id"] == str(lease.id)


async def test_where_nobody_in_particular_may_do_anything_any_more_an_identity_is_required(
    ruled: Ruled, state: Any
) -> None:
    await ruled.says(state, rule("in/", principals="anonymous"))
    stream = await watching(state, "")
    await ruled.says(state, rule())
    assert (await end_of(stream)).code is grpc.StatusCode.UNAUTHENTICATED
    assert await code(state, "") is grpc.StatusCode.UNAUTHENTICATED


async def test_a_file_that_is_no_policy_changes_nothing(ruled: Ruled, state: Any) -> None:
    await ruled.says(state, rule("in/"))
    stream = await watching(state, "ann")
    for text, problem in [
        ("[[rules]]\nprincipals = ['ann']\n", "rule 1, namespaces is required"),
        ("rules = 1", "rules is not a list"),
    ]:
        await refused(problem, lambda text=text: replaced(ruled.file, text))  # type: ignore[misc]
        assert await code(state, "ann") is OK
    await refused("No such file", ruled.file.unlink)
    await state.Put(s.PutRequest(namespace=TEAM, key="in/key"), timeout=TIMEOUT, metadata=shown("ann"))
    assert (await stream.read()).commits
    # An empty one is a policy: it denies everything.
    replaced(ruled.file, "")
    assert (await end_of(stream)).code is PERMISSION_DENIED
    assert await code(state, "root") is PERMISSION_DENIED


@pytest.mark.parametrize(
    ("text", "problem"),
    [("rules = 1", "rules is not a list"), (None, "No such file or directory")],
)
def test_a_server_does_not_start_with_a_file_that_is_no_policy(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "policy.toml"
    if text is not None:
        file.write_text(text)
    done = CliRunner().invoke(command, ["--policy", str(file), "--store", "memory:"])
    assert (done.exit_code, done.output) == (2, f"Error: policy: {file}: {problem}\n")
