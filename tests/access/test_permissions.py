"""What each call needs: one table, of calls and principals, through a server's socket. The table of docs/permissions.md
says the same.

A call that a principal may not make is refused in the same way whether or not there is what it asks for.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NamedTuple

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import comity.v1
from comity.v1 import checkpoint_pb2 as c
from comity.v1 import lease_pb2 as le
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from comity_server.access.policy import parse
from tests import servers
from tests.access.principals import shown, write_policy, write_tokens
from tests.access.table import (
    ABORTED,
    ADMIN,
    FORK,
    GET,
    NOT_FOUND,
    OK,
    OPERATIONS,
    OTHER,
    PERMISSION_DENIED,
    PRINCIPALS,
    PUT,
    READ,
    ROWS,
    SECOND,
    TEAM,
    TRANSACT,
    WRITE,
    Need,
    Operation,
    Row,
    anything,
    has,
    may,
    of,
    on,
)
from tests.wire.calls import TIMEOUT, Wire, read_refusal

PAGE = Path(__file__).parents[2] / "docs" / "permissions.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    directory = tmp_path_factory.mktemp("access")
    tokens = write_tokens(directory / "tokens", [*PRINCIPALS, "root"])
    rules = [
        {"principals": [who or "anonymous"], "namespaces": [where], "prefixes": prefixes, "allow": [access]}
        for who, grants in PRINCIPALS.items()
        for where, allowed in grants.items()
        for access, prefixes in allowed.items()
    ]
    root = {"principals": ["root"], "namespaces": ["*"], "allow": [READ, WRITE, ADMIN]}
    policy = write_policy(directory / "policy.toml", [*rules, root])
    with servers.start("--tokens", str(tokens), "--policy", str(policy)) as server:
        yield server


@pytest.fixture(scope="module")
def wire(server: servers.Server) -> Iterator[Wire]:
    with grpc.insecure_channel(server.address) as channel:
        wire = Wire(channel)
        for request in (
            s.PutRequest(**of(key="in/key")),
            c.CheckpointRequest(**of(name="mark")),
            n.ForkRequest(**of(fork=FORK)),
            s.PutRequest(namespace="hidden", key="key"),
            s.PutRequest(**of(key="in/key")),  # so that what asks for the first revision is always too late
        ):
            wire.call(request, metadata=shown("root"))
        yield wire


class Answer(NamedTuple):
    code: grpc.StatusCode
    reason: str = ""
    metadata: dict[str, str] | None = None
    answer: Any = None


def ask(wire: Wire, principal: str, request: Any) -> Answer:
    try:
        return Answer(OK, answer=wire.call(request, metadata=shown(principal)))
    except grpc.RpcError as error:
        refused = read_refusal(error)
        return Answer(refused.code, refused.reason, dict(refused.metadata))


def check_denial(denied: Answer, principal: str, needs: Sequence[Need]) -> None:
    assert (denied.code, denied.reason) == (PERMISSION_DENIED, "PERMISSION_DENIED")
    assert denied.metadata is not None
    assert denied.metadata["principal"] == principal
    assert denied.metadata["namespace"] in {need.namespace for need in needs}
    lacks = [
        need.access for need in needs if need.namespace == denied.metadata["namespace"] and not has(principal, need)
    ]
    assert denied.metadata["access"].lower() in {" and ".join(lacks), *lacks}, lacks


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.title}-{'-'.join(str(need.prefix) for need in row.needs)}")
def test_what_each_call_needs(wire: Wire, row: Row) -> None:
    for principal in PRINCIPALS:
        answer = ask(wire, principal, row.request)
        if may(principal, row.needs):
            allowed = {row.code, ABORTED} if "if_revision" in str(row.request) else {row.code}
            assert answer.code in allowed, (principal, answer)
        else:
            check_denial(answer, principal, row.needs)


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if each.transact is not None], ids=lambda each: each.title
)
def test_what_each_operation_of_a_transaction_needs(wire: Wire, operation: Operation) -> None:
    assert operation.transact is not None
    request = s.TransactRequest(**of(**operation.transact))
    for principal in PRINCIPALS:
        answer = ask(wire, principal, request)
        if may(principal, operation.needs):
            assert answer.code is OK, (principal, answer)
        else:
            assert answer.code is PERMISSION_DENIED, (principal, answer)
        [result] = on_a_pipeline(wire, principal, on(TRANSACT, transact=s.TransactRequest(**operation.transact)))
        assert (result.code == 0) is may(principal, operation.needs), (principal, result)


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if each.pipeline is not None], ids=lambda each: each.title
)
def test_what_each_operation_of_a_pipeline_needs(wire: Wire, operation: Operation) -> None:
    assert operation.pipeline is not None
    for principal in PRINCIPALS:
        [result] = on_a_pipeline(wire, principal, operation.pipeline)
        if may(principal, operation.needs):
            assert result.code in (0, ABORTED.value[0]), (principal, result)
        else:
            assert result.code == PERMISSION_DENIED.value[0], (principal, result)


def on_a_pipeline(wire: Wire, principal: str, operation: s.PipelineOperation) -> Sequence[Any]:
    """What an operation is answered on a stream of its own; who gets none has as answer that of the stream."""
    answer = ask(wire, principal, s.PipelineRequest(**of(operations=[operation])))
    if answer.code is not OK:
        assert not may(principal, [anything("read or write")])
        return [s.PipelineResult(code=answer.code.value[0])]
    return answer.answer.results  # type: ignore[no-any-return]


def test_one_denied_operation_of_a_message_keeps_no_other_from_its_end(wire: Wire) -> None:
    operations = [
        s.PipelineOperation(id=1, kind=PUT, key="in/a"),
        s.PipelineOperation(id=2, kind=PUT, key="out/a"),
        s.PipelineOperation(id=3, kind=GET, key="in/a"),
    ]
    results: dict[int, Any] = {}
    stream = wire.state.Pipeline(
        iter([s.PipelineRequest(**of(operations=operations))]), timeout=TIMEOUT, metadata=shown("works-in")
    )
    for message in stream:
        results |= {result.id: result for result in message.results}
    assert (results[1].code, results[2].code, results[3].code) == (0, PERMISSION_DENIED.value[0], 0)
    assert results[2].error.metadata["key"] == "out/a"
    assert results[3].entry.key == "in/a"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_a_refusal_does_not_tell_whether_there_is_such_a_namespace(wire: Wire, row: Row) -> None:
    asked = type(row.request)()
    asked.CopyFrom(row.request)
    if not row.needs or not hasattr(asked, "namespace"):
        return
    asked.namespace = "none-such"
    for principal in ("stranger", "elsewhere"):
        there, not_there = ask(wire, principal, row.request), ask(wire, principal, asked)
        assert there.code is not_there.code is PERMISSION_DENIED
        assert there.metadata is not None
        assert not_there.metadata is not None
        assert {**there.metadata, "namespace": ""} == {**not_there.metadata, "namespace": ""}


def test_what_is_wrong_is_said_first(wire: Wire) -> None:
    assert ask(wire, "stranger", s.GetRequest(**of(key=""))).code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_denial_says_what_is_lacked(wire: Wire) -> None:
    refused = wire.refused(s.PutRequest(**of(key="out/a")), metadata=shown("works-in"))
    assert refused.message == "works-in lacks WRITE in namespace team, key 'out/a'"
    assert refused.metadata == {"principal": "works-in", "access": "WRITE", "namespace": "team", "key": "out/a"}
    refused = wire.refused(s.ListRequest(**of(prefix="in")))
    assert refused.message == "anonymous lacks READ in namespace team, prefix 'in'"
    refused = wire.refused(s.PutRequest(**of(key="in/a", return_previous=True)), metadata=shown("writes-in"))
    assert refused.message == "writes-in lacks READ in namespace team, key 'in/a'"
    refused = wire.refused(s.TransactRequest(**of()), metadata=shown("stranger"))
    assert refused.message == "stranger lacks READ or WRITE in namespace team"


# What answers show


def test_namespaces_that_are_of_no_concern_are_not_listed(wire: Wire) -> None:
    def names(principal: str, page_size: int) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            request = n.ListNamespacesRequest(page_size=page_size, page_token=token)
            page = wire.call(request, metadata=shown(principal))
            assert len(page.namespaces) <= page_size
            found += [each.name for each in page.namespaces]
            token = page.next_page_token
            if not token:
                return found

    for size in (1, 2, 100):
        assert names("root", size) == ["hidden", TEAM, FORK]
        assert names("operator", size) == ["hidden", TEAM, FORK]
        assert names("forks", size) == [TEAM, FORK]
        assert names("reads-in", size) == names("administers", size) == names("", size) == [TEAM]
        assert names("stranger", size) == names("elsewhere", size) == []


def test_a_page_token_gives_another_nothing(wire: Wire) -> None:
    for key in ("in/1", "in/2", "in/3"):
        wire.call(s.PutRequest(**of(key=key)), metadata=shown("root"))
    asked = s.ListRequest(**of(page_size=1))
    token = wire.call(asked, metadata=shown("root")).next_page_token
    asked.page_token = token
    assert wire.call(asked, metadata=shown("reads")).entries
    for principal in ("stranger", "reads-in", ""):
        assert ask(wire, principal, asked).code is PERMISSION_DENIED
    asked.prefix = "in/"
    assert ask(wire, "reads-in", asked).code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_parent_that_is_of_no_concern_is_not_named(wire: Wire) -> None:
    wire.call(n.ForkRequest(namespace="hidden", fork=OTHER), metadata=shown("root"))
    try:
        asked = n.GetNamespaceRequest(namespace=OTHER)
        assert wire.call(asked, metadata=shown("root")).namespace.parent == "hidden"
        seen = wire.call(asked, metadata=shown("elsewhere")).namespace
        assert (seen.name, seen.parent, seen.fork_revision) == (OTHER, "", 0)
    finally:
        wire.call(n.DeleteNamespaceRequest(namespace=OTHER), metadata=shown("root"))


def test_history_shows_what_may_be_read(wire: Wire) -> None:
    both = s.TransactRequest(
        **of(then=[s.Operation(put=s.PutOperation(key=key, value=b"new")) for key in ("in/h", "out/h")])
    )
    wire.call(both, metadata=shown("root"))
    page = wire.call(s.HistoryRequest(**of(prefix="in/", page_size=1)), metadata=shown("reads-in"))
    assert [event.entry.key for event in page.commits[0].events] == ["in/h"]


# Leases


def granted(wire: Wire, principal: str, author: str = "") -> int:
    request = le.GrantLeaseRequest(**of(ttl=SECOND, options=t.WriteOptions(author=author)))
    return wire.call(request, metadata=shown(principal)).lease.id  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", [le.KeepAliveRequest, le.RevokeLeaseRequest])
def test_a_lease_is_its_owners_and_of_those_who_may_write_all(wire: Wire, form: Any) -> None:
    for owner, author, principal, code in [
        ("works-in", "", "works-in", OK),
        ("works-in", "works-in/part", "works-in", OK),
        ("works-in", "", "writes-in", PERMISSION_DENIED),
        ("works-in", "", "reads", PERMISSION_DENIED),
        ("works-in", "", "stranger", PERMISSION_DENIED),
        ("works", "", "works-in", PERMISSION_DENIED),
        ("works-in", "", "writes", OK),
        ("root", "", "works-in", PERMISSION_DENIED),
    ]:
        lease_id = granted(wire, owner, author)
        answer = ask(wire, principal, form(**of(lease_id=lease_id)))
        assert answer.code is code, (owner, principal, answer)
        lives = ask(wire, "root", le.GetLeaseRequest(**of(lease_id=lease_id))).code
        assert lives is (NOT_FOUND if code is OK and form is le.RevokeLeaseRequest else OK)


def attach(wire: Wire, principal: str, form: str, lease_id: int, key: str = "in/leased") -> Answer:
    """Have a key live by a lease."""
    then = [s.Operation(put=s.PutOperation(key=key, lease_id=lease_id))]
    match form:
        case "put":
            return ask(wire, principal, s.PutRequest(**of(key=key, lease_id=lease_id)))
        case "then":
            return ask(wire, principal, s.TransactRequest(**of(then=then)))
        case "otherwise":
            never = s.Condition(key="in/absent", exists=True)
            return ask(wire, principal, s.TransactRequest(**of(conditions=[never], otherwise=then)))
        case "pipeline":
            operation = s.PipelineOperation(id=1, kind=PUT, key=key, lease_id=lease_id)
        case _:
            operation = on(TRANSACT, transact=s.TransactRequest(then=then))
    [result] = on_a_pipeline(wire, principal, operation)
    [code] = [code for code in grpc.StatusCode if code.value[0] == result.code]
    return Answer(code, result.error.reason, dict(result.error.metadata))


@pytest.mark.parametrize("form", ["put", "then", "otherwise", "pipeline", "transaction of a pipeline"])
def test_a_lease_is_not_for_others_to_fill(wire: Wire, form: str) -> None:
    for owner, author, principal, code in [
        ("works-in", "", "works-in", OK),
        ("works-in", "works-in/part", "works-in", OK),
        ("root", "", "works-in", PERMISSION_DENIED),
        ("works-in", "", "works", OK),
    ]:
        lease_id = granted(wire, owner, author)
        answer = attach(wire, principal, form, lease_id)
        assert answer.code is code, (owner, principal, answer)
        if code is PERMISSION_DENIED:
            assert answer.metadata is not None
            assert answer.metadata["lease_id"] == str(lease_id)
        lease = wire.call(le.GetLeaseRequest(**of(lease_id=lease_id)), metadata=shown("root")).lease
        assert lease.key_count == (code is OK)


def test_a_key_may_go_on_to_live_by_the_lease_of_another(wire: Wire) -> None:
    """Whoever has it live by it once: it takes up nothing more of the lease."""
    lease_id = granted(wire, "root")
    assert attach(wire, "root", "put", lease_id).code is OK
    assert attach(wire, "works-in", "put", lease_id).code is OK
    assert attach(wire, "works-in", "put", lease_id, "in/other").code is PERMISSION_DENIED


def test_a_refusal_of_a_lease_names_it(wire: Wire) -> None:
    lease_id = granted(wire, "root")
    denied = ask(wire, "works-in", le.KeepAliveRequest(**of(lease_id=lease_id)))
    assert denied.metadata is not None
    assert denied.metadata["lease_id"] == str(lease_id)


# Request ids


def test_nobody_is_given_the_outcome_of_another_principals_request(wire: Wire) -> None:
    said = t.WriteOptions(request_id=t.RequestId(client="client", sequence=1))
    asked = s.PutRequest(**of(key="in/once", options=said, return_previous=True))
    first = wire.call(asked, metadata=shown("works"))
    assert wire.call(asked, metadata=shown("works")) == first
    other = wire.call(asked, metadata=shown("works-in"))
    assert other.version == first.version + 1
    on_pipeline = s.PipelineRequest(**of(client="client", operations=[on(PUT, key="in/once", return_previous=True)]))
    assert wire.call(on_pipeline, metadata=shown("works-in")).results[0].version == other.version
    assert wire.call(on_pipeline, metadata=shown("root")).results[0].version == other.version + 1
    # A name that looks like another's.
    forged = t.WriteOptions(request_id=t.RequestId(client="works\x1fclient", sequence=1))
    again = wire.call(s.PutRequest(**of(key="in/once", options=forged)), metadata=shown("works-in"))
    assert again.version == other.version + 2


# What is for the server as a whole, or for everybody


def test_channelz_is_for_those_who_administer_every_namespace(wire: Wire) -> None:
    stub: Any = channelz_pb2_grpc.ChannelzStub(wire.channel)
    for principal in PRINCIPALS:
        code = OK
        try:
            stub.GetServers(channelz_pb2.GetServersRequest(), timeout=TIMEOUT, metadata=shown(principal))
        except grpc.RpcError as error:
            code = read_refusal(error).code
        assert code is (OK if principal == "operator" else PERMISSION_DENIED), principal


def test_health_is_for_everybody(wire: Wire) -> None:
    stub: Any = health_pb2_grpc.HealthStub(wire.channel)
    for metadata in ((), shown("stranger"), (("authorization", "Bearer none"),)):
        status = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT, metadata=metadata).status
        assert status == health_pb2.HealthCheckResponse.SERVING


# Nothing is forgotten


def rpcs() -> Iterator[str]:
    """Every RPC of the contract."""
    for module in iter_modules(comity.v1.__path__):
        if module.name.endswith("_pb2"):
            descriptor = __import__(f"comity.v1.{module.name}", fromlist=["DESCRIPTOR"]).DESCRIPTOR
            for service in descriptor.services_by_name.values():
                yield from (method.name for method in service.methods)


def rpc(title: str) -> str:
    return re.split(r"\W", title)[0]


def test_every_rpc_is_in_the_table() -> None:
    assert {rpc(row.title) for row in ROWS} == set(rpcs())
    for row in ROWS:
        assert rpc(row.title) == type(row.request).__name__.removesuffix("Request")


def test_the_page_says_the_same() -> None:
    told = dict(re.findall(r"^\| (`[A-Z]\w+`.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE))
    lines = [(each.title, each.needs) for each in ROWS if each.documented]
    lines += [(each.title, each.needs) for each in OPERATIONS if each.documented and each.transact is not None]
    assert told == {title.replace(rpc(title), f"`{rpc(title)}`", 1): said(needs) for title, needs in lines}


def test_the_examples_of_the_page_are_policies() -> None:
    examples = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for example in examples:
        parse(example.encode(), "example")
    assert [len(tomllib.loads(example).get("rules", ())) for example in examples] == [3, 0, 1, 1, 2, 1, 1, 1]


def said(needs: Sequence[Need]) -> str:
    """As `read on the prefix, write on the prefix`."""
    return ", ".join(f"{need.access} on {need.of}" for need in needs) or "nothing"
