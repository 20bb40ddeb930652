"""Who makes a call: by what it shows, over a real socket; and in whose name it writes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import lease_pb2 as le
from comity.v1 import lease_pb2_grpc
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1.types_pb2 import Ref, WriteOptions
from comity_server.access.tokens import line_of, new_token, time_of
from tests import servers
from tests.access.bearers import bearing, signed, write_jwks, write_tokens
from tests.wire.calls import TIMEOUT, Metadata, Refusal, Wire
from tests.wire.inprocess import run
from tests.wire.pipes import connected, piped, put
from tests.wire.test_tools import reflect

PLANNER, OTHER, EXPIRED = new_token(), new_token(), new_token()
GET = s.GetRequest(namespace="n", key="k")


@dataclass(frozen=True)
class Guarded:
    server: servers.Server
    wire: Wire

    def author(self, namespace: str) -> str:
        """The author of the newest commit."""
        request = s.HistoryRequest(namespace=namespace)
        return str(self.wire.call(request, metadata=bearing(PLANNER)).commits[0].author)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("identity")
    write_tokens(folder / "tokens", planner=PLANNER, other=OTHER)
    with (folder / "tokens").open("a") as file:
        file.write(line_of("planner", EXPIRED, time_of("2020-01-01T00:00:00Z")))
    write_jwks(folder / "jwks")
    arguments = ("--tokens", str(folder / "tokens"), "--jwks", str(folder / "jwks"))
    with servers.start(*arguments) as server, grpc.insecure_channel(server.address) as channel:
        yield Guarded(server, Wire(channel))


@pytest.mark.parametrize("token", [PLANNER, signed("planner")], ids=["token", "jwt"])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_a_call_is_of_the_principal_of_its_token(guarded: Guarded, namespace: str, scheme: str, token: str) -> None:
    guarded.wire.call(s.PutRequest(namespace=namespace, key="k"), metadata=(("authorization", scheme + token),))
    assert guarded.author(namespace) == "planner"


HEADERS: list[tuple[str, Metadata]] = [
    ("missing", ()),
    ("malformed", (("authorization", ""),)),
    ("malformed", (("authorization", "Bearer"),)),
    ("malformed", (("authorization", "Bearer "),)),
    ("malformed", (("authorization", PLANNER),)),
    ("malformed", (("authorization", f"Basic {PLANNER}"),)),
    ("malformed", (("authorization", f"Bearer{PLANNER}"),)),
    ("malformed", (("authorization", f"Bearer {PLANNER} x"),)),
    ("malformed", (("authorization", f"Bearer {PLANNER}, Bearer {PLANNER}"),)),
    ("malformed", (("authorization", 'Bearer "' + PLANNER + '"'),)),
    ("malformed", (("authorization", "Bearer " + "x" * 8192),)),
    ("malformed", bearing(PLANNER) * 2),
    ("malformed", bearing(PLANNER) + bearing(OTHER)),
    ("malformed", (("authorization-bin", f"Bearer {PLANNER}".encode()),)),
    ("malformed", (*bearing(PLANNER), ("authorization-bin", b"x"))),
    ("unknown", bearing(new_token())),
    ("unknown", bearing(PLANNER[:-1])),
    ("unknown", bearing(PLANNER + "=")),
    ("unknown", bearing(PLANNER.swapcase())),
    ("unknown", bearing("x" * 8000)),
    ("malformed", bearing("a.b.c")),
    ("unknown", bearing("." * 8000)),
    ("expired", bearing(EXPIRED)),
    ("expired", bearing(signed("planner", -60))),
    ("unknown", bearing(signed("planner")[:-8] + "AAAAAAAA")),
]


@pytest.mark.parametrize(("problem", "metadata"), HEADERS, ids=map(str, range(len(HEADERS))))
def test_what_shows_nobody_is_refused(guarded: Guarded, problem: str, metadata: Metadata) -> None:
    for request in (GET, s.WatchRequest(namespace="n"), s.PipelineRequest(namespace="n"), le.KeepAliveRequest()):
        refused = guarded.wire.refused(request, metadata)
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert refused.metadata == {"problem": problem}
        assert not shows(refused, metadata)


def shows(refused: Refusal, metadata: Metadata) -> bool:
    """Whether what is told shows what was shown."""
    told = repr(refused)
    values = [value if isinstance(value, str) else value.decode() for _, value in metadata]
    return any(len(part) > 10 and part in told for value in values for part in value.split())


def test_a_header_beyond_what_metadata_may_be_harms_nobody(guarded: Guarded) -> None:
    refused = guarded.wire.refused(GET, (("authorization", "Bearer " + "x" * 100_000),))
    assert refused.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAUTHENTICATED)
    assert guarded.wire.call(GET, metadata=bearing(PLANNER)) is not None


def test_tools_of_operators_need_no_identity(guarded: Guarded) -> None:
    health: Any = health_pb2_grpc.HealthStub(guarded.wire.channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status
    assert reflect(guarded.wire.channel, list_services="").list_services_response.service


def test_the_log_has_no_tokens(guarded: Guarded) -> None:
    guarded.wire.refused(GET, bearing(OTHER + "x"))
    log = guarded.server.log()
    assert not any(token in log for token in (PLANNER, OTHER, EXPIRED, "eyJ"))


# In whose name


def writes(namespace: str, options: WriteOptions) -> list[Any]:
    """A request for each method that takes an author."""
    return [
        s.PutRequest(namespace=namespace, key="k", options=options),
        s.DeleteRequest(namespace=namespace, key="k", options=options),
        s.TransactRequest(namespace=namespace, then=[s.Operation(put=s.PutOperation(key="k"))], options=options),
        c.CheckpointRequest(namespace=namespace, name="c", options=options),
        c.RestoreRequest(namespace=namespace, ref=Ref(revision=1), options=options),
        c.DeleteCheckpointRequest(namespace=namespace, name="c", options=options),
        n.ForkRequest(namespace=namespace, fork="fork", options=options),
        n.MergeRequest(namespace=namespace, fork="fork", options=options),
        le.GrantLeaseRequest(namespace=namespace, ttl=Duration(seconds=60), options=options),
        le.RevokeLeaseRequest(namespace=namespace, lease_id=1, options=options),
    ]


def test_every_method_that_takes_an_author_is_among_the_writes() -> None:
    services: list[ServiceDescriptor] = [
        service for file in (s, c, n, le) for service in file.DESCRIPTOR.services_by_name.values()
    ]
    taking = {
        method.input_type.name
        for service in services
        for method in service.methods
        for field in method.input_type.fields
        if field.message_type is WriteOptions.DESCRIPTOR
    }
    assert taking == {type(request).__name__ for request in writes("n", WriteOptions())}


FORGED = ["other", "planner2", "plann", "Planner", "planner /x", "/planner", "other/planner", "planner/"]


@pytest.mark.parametrize("author", FORGED)
def test_nobody_writes_in_the_name_of_another(guarded: Guarded, namespace: str, author: str) -> None:
    mine = bearing(PLANNER)
    requests = writes(namespace, WriteOptions(author=author)) if author == FORGED[0] else []
    attempts: list[tuple[Any, Metadata]] = [(request, mine) for request in requests]
    put = s.PutRequest(namespace=namespace, key="k")
    attempts += [
        (s.PutRequest(namespace=namespace, key="k", options=WriteOptions(author=author)), mine),
        (put, (*mine, ("comity-author", author))),
        (put, (*mine, ("comity-author-bin", author.encode()))),
        (put, (*mine, ("comity-author", ""), ("comity-author", author))),
        (put, (*mine, ("comity-author", author), ("comity-author", "planner"))),
    ]
    for request, metadata in attempts:
        refused = guarded.wire.refused(request, metadata)
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "AUTHOR_NOT_PRINCIPAL"), request
        assert refused.metadata == {"principal": "planner", "author": author}


@pytest.mark.parametrize("author", ["", "planner", "planner//", "planner/research/7"])
def test_a_principal_writes_as_itself_or_as_one_of_its_own(guarded: Guarded, namespace: str, author: str) -> None:
    put = s.PutRequest(namespace=namespace, key="k", options=WriteOptions(author=author))
    guarded.wire.call(put, metadata=bearing(PLANNER))
    assert guarded.author(namespace) == (author or "planner")
    if author:
        named = (*bearing(PLANNER), ("comity-author", author))
        guarded.wire.call(s.PutRequest(namespace=namespace, key="k"), metadata=named)
        assert guarded.author(namespace) == author


async def test_nobody_writes_in_the_name_of_another_through_a_pipeline(guarded: Guarded, namespace: str) -> None:
    mine = bearing(PLANNER)
    async with connected(guarded.server.address) as channel:
        for said in ({"author": "other"}, {"metadata": (*mine, ("comity-author", "other"))}):
            async with piped(channel, namespace, **{"metadata": mine, **said}) as pipe:  # type: ignore[arg-type]
                await pipe.send(put("k"))
                ended = await pipe.ended()
                assert ended is not None
                assert ended.reason == "AUTHOR_NOT_PRINCIPAL"
        async with piped(channel, namespace, author="planner/a", metadata=mine) as pipe:
            await pipe.one(put("k"))
    assert guarded.author(namespace) == "planner/a"


async def test_whoever_is_nobody_does_not_write_as_somebody(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens", planner=PLANNER)
    (tmp_path / "policy").write_text(
        '[[rules]]\nprincipals = ["anonymous"]\nnamespaces = ["*"]\nallow = ["read", "write"]\n'
    )
    async with run(tokens=tmp_path / "tokens", policy=tmp_path / "policy") as running:
        for author in ("", "anonymous", "anonymous/a"):
            await running.state.Put(s.PutRequest(namespace="n", key="k", options=WriteOptions(author=author)))
        for author in ("planner", "anonymous2"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.state.Put(s.PutRequest(namespace="n", key="k", options=WriteOptions(author=author)))
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        history = await running.state.History(s.HistoryRequest(namespace="n"))
        assert [commit.author for commit in history.commits] == ["anonymous/a", "anonymous", ""]
        # A token that is wrong is not taken for none.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.state.Get(GET, metadata=bearing(OTHER))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_where_nobody_is_asked_a_lease_is_whosever_uses_it(tmp_path: Path) -> None:
    """Also where a policy says what everybody may do: an author is whatever a client says."""
    (tmp_path / "policy").write_text(
        '[[rules]]\nprincipals = ["anonymous"]\nnamespaces = ["*"]\nprefixes = ["a/"]\nallow = ["read", "write"]\n'
    )
    async with (
        run(policy=tmp_path / "policy") as running,
        grpc.aio.insecure_channel(running.server.addresses[0]) as channel,
    ):
        leases: lease_pb2_grpc.LeaseServiceAsyncStub = lease_pb2_grpc.LeaseServiceStub(channel)
        grant = le.GrantLeaseRequest(namespace="n", ttl=Duration(seconds=60), options=WriteOptions(author="agent"))
        lease = (await leases.GrantLease(grant)).lease
        renewals: Any = leases.KeepAlive()
        await renewals.write(le.KeepAliveRequest(namespace="n", lease_id=lease.id))
        assert (await renewals.read()).ttl.seconds > 0
        renewals.cancel()
        await leases.RevokeLease(le.RevokeLeaseRequest(namespace="n", lease_id=lease.id))


async def test_where_nobody_is_asked_a_header_means_nothing() -> None:
    async with run() as running:
        await running.state.Put(
            s.PutRequest(namespace="n", key="k", options=WriteOptions(author="x")), metadata=bearing("y")
        )
