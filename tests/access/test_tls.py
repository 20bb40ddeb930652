"""Servers that serve TLS, and know clients by their certificates: over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from comity.v1 import state_pb2 as s
from comity.v1 import state_pb2_grpc
from comity_server.access import files
from comity_server.access.certificates import Certificates
from comity_server.access.clients import Clients
from comity_server.errors import Unauthenticated
from tests import servers
from tests.access.channels import async_channel, channel
from tests.authority import DAY, Authority, Issued
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Refusal, Wire, read_refusal
from tests.wire.inprocess import Running, run

AUTHORITY = Authority()
CLIENTS = Authority("clients")
X400_ADDRESS = b"\x30\x04\xa3\x02\x30\x00"  # which is a name, but one that hardly anything knows
NO_TEXT = b"\x30\x03\x86\x01\xff"  # a URI


@dataclass(frozen=True)
class Secured:
    """A server that asks clients for certificates."""

    address: str
    server: servers.Server

    def author(self, shown: Issued, namespace: str, **said: Any) -> str:
        """The author of a write of a client that shows a certificate."""
        with channel(self.address, AUTHORITY.pem, shown) as connection:
            wire = Wire(connection)
            wire.call(s.PutRequest(namespace=namespace, key="key", **said))
            history = wire.call(s.HistoryRequest(namespace=namespace))
        return str(history.commits[-1].author)

    def refusal(self, shown: Issued) -> Refusal:
        with channel(self.address, AUTHORITY.pem, shown) as connection:
            return Wire(connection).refused(s.GetRequest(namespace="n", key="k"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = AUTHORITY.server().write(folder)
    (folder / "ca.pem").write_bytes(CLIENTS.pem)
    with servers.start(*_arguments(cert, key, folder / "ca.pem")) as server:
        yield Secured(server.address.replace("127.0.0.1", "localhost"), server)


def _arguments(cert: Path, key: Path, ca: Path | None = None) -> Sequence[str]:
    client_ca = ["--tls-client-ca", str(ca)] if ca else []
    return ["--tls-cert", str(cert), "--tls-key", str(key), *client_ca]


WRONG = [  # SPIFFE IDs
    "SPIFFE://acme/a",
    "spiffe:acme/a",
    "spiffe://",
    "spiffe:///a",
    "spiffe://Acme/a",
    "spiffe://acme:443/a",
    "spiffe://me@acme/a",
    "spiffe://acme/",
    "spiffe://acme/a/",
    "spiffe://acme//a",
    "spiffe://acme/a/../b",
    "spiffe://acme/.",
    "spiffe://acme/a?b",
    "spiffe://acme/a#b",
    "spiffe://acme/%61",
    "spiffe://acme/a b",
    "spiffe://acme/a\n",
    f"spiffe://{'a' * 256}/a",
]


@pytest.mark.parametrize(
    ("shown", "principal"),
    [
        (CLIENTS.client("planner"), "planner"),
        (CLIENTS.client("planner", uris=("spiffe://acme/planner",)), "spiffe://acme/planner"),
        (CLIENTS.client(uris=("https://acme/planner", "spiffe://acme/b")), "spiffe://acme/b"),
        (CLIENTS.client(uris=("spiffe://a.c_m-3",)), "spiffe://a.c_m-3"),
        (CLIENTS.client(uris=("spiffe://acme/B/..a/.c/_-.d",)), "spiffe://acme/B/..a/.c/_-.d"),
        (CLIENTS.client("\N{GREEK SMALL LETTER ALPHA}", uris=("https://acme/a",)), "\N{GREEK SMALL LETTER ALPHA}"),
    ],
)
def test_a_client_is_who_its_certificate_says(secured: Secured, namespace: str, shown: Issued, principal: str) -> None:
    assert secured.author(shown, namespace) == principal


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (CLIENTS.client(), "neither a SPIFFE ID nor one common name"),
        (CLIENTS.client("a", "b"), "neither a SPIFFE ID nor one common name"),
        (CLIENTS.client("a", uris=("spiffe://a/b", "spiffe://a/c")), "more than one SPIFFE ID"),
        (CLIENTS.client("anonymous"), "may not be 'anonymous'"),
        (CLIENTS.client("a\nb"), "cannot be printed"),
        (CLIENTS.client("a", uris=("spiffe://a/" + "b" * 128,)), "SPIFFE ID of the client's certificate is longer"),
        *(
            (CLIENTS.client("a", uris=(uri,)), "SPIFFE ID of the client's certificate is not well-formed")
            for uri in WRONG
        ),
        (CLIENTS.client("spiffe://acme/admin"), "common name of the client's certificate looks like a SPIFFE ID"),
        (CLIENTS.client("Spiffe://acme/admin", uris=("https://acme/a",)), "common name of the client's certificate"),
        (CLIENTS.client("a", raw_names=X400_ADDRESS), "cannot be read"),
        (CLIENTS.client("a", raw_names=NO_TEXT), "cannot be read"),
    ],
)
def test_a_certificate_has_to_name_one(secured: Secured, shown: Issued, says: str) -> None:
    refused = secured.refusal(shown)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert refused.metadata == {"problem": "malformed"}
    assert says in refused.message


@pytest.mark.parametrize(
    "shown",
    [
        None,
        AUTHORITY.client("planner"),  # signed by another than the authority of clients
        Authority("clients").client("planner"),  # nor does its name help
        CLIENTS.client("planner", lasts=-DAY),
    ],
)
def test_tls_lets_nobody_else_in(secured: Secured, shown: Issued | None) -> None:
    with channel(secured.address, AUTHORITY.pem, shown) as connection:
        assert Wire(connection).refused(s.GetRequest(namespace="n", key="k")).code is grpc.StatusCode.UNAVAILABLE


def test_a_client_without_tls_is_not_served(secured: Secured) -> None:
    with grpc.insecure_channel(secured.address) as connection:
        assert Wire(connection).refused(s.GetRequest(namespace="n", key="k")).code is grpc.StatusCode.UNAVAILABLE


def test_a_client_knows_another_server(secured: Secured) -> None:
    with channel(secured.address, CLIENTS.pem, CLIENTS.client("planner")) as connection:
        assert Wire(connection).refused(s.GetRequest(namespace="n", key="k")).code is grpc.StatusCode.UNAVAILABLE


@asynccontextmanager
async def rotating(folder: Path, issued: Issued, clients: bytes | None = None) -> AsyncIterator[tuple[Running, str]]:
    cert, key = issued.write(folder)
    settings: dict[str, Any] = {"tls_cert": cert, "tls_key": key}
    if clients is not None:
        (folder / "ca.pem").write_bytes(clients)
        settings["tls_client_ca"] = folder / "ca.pem"
    async with run(**settings) as running:
        yield running, running.server.addresses[0].replace("127.0.0.1", "localhost")


async def get(connection: grpc.aio.Channel) -> None:
    state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(connection)
    await state.Get(s.GetRequest(namespace="n", key="k"), timeout=TIMEOUT)


async def refused(connection: grpc.aio.Channel) -> Refusal | None:
    try:
        await get(connection)
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    return None


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(files, "SETTLE_SECONDS", 0.0)


def test_a_certificate_may_expire_while_its_client_is_connected(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(CLIENTS.pem)
    clients = Clients(Certificates(*AUTHORITY.server().write(tmp_path), tmp_path / "ca.pem"))
    assert clients.identify(CLIENTS.client("planner").cert).principal == "planner"
    with pytest.raises(Unauthenticated) as caught:
        clients.identify(CLIENTS.client("planner", lasts=-DAY).cert)
    assert caught.value.metadata == {"problem": "expired"}


async def test_a_server_with_an_expired_certificate_says_so(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with rotating(tmp_path, AUTHORITY.server(lasts=-DAY)):
            await until(lambda: "a certificate has expired" in [line["event"] for line in logs])


@pytest.mark.usefixtures("_quick")
async def test_new_connections_have_the_new_certificate_and_old_ones_go_on(tmp_path: Path) -> None:
    renewed = Authority("renewed")
    async with (
        rotating(tmp_path, AUTHORITY.server()) as (_, address),
        async_channel(address, AUTHORITY.pem) as connected,
    ):
        await get(connected)
        renewed.server().write(tmp_path)

        async def is_new() -> bool:
            async with async_channel(address, renewed.pem) as another:
                return await refused(another) is None

        await until(is_new)
        await get(connected)
        async with async_channel(address, AUTHORITY.pem) as another:
            refusal = await refused(another)
        assert refusal is not None
        assert refusal.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.usefixtures("_quick")
async def test_a_client_whose_authority_is_taken_away_is_let_in_no_more(tmp_path: Path) -> None:
    others = Authority("others")
    shown, other = CLIENTS.client("planner"), others.client("other")
    async with (
        rotating(tmp_path, AUTHORITY.server(), CLIENTS.pem + others.pem) as (_, address),
        async_channel(address, AUTHORITY.pem, shown) as connected,
        async_channel(address, AUTHORITY.pem, other) as stays,
    ):
        await get(connected)
        await get(stays)
        state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(connected)
        watch: Any = state.Watch(s.WatchRequest(namespace="n", prefix=""))
        await watch.read()
        (tmp_path / "ca.pem").write_bytes(others.pem)
        async with asyncio.timeout(TIMEOUT):
            assert await watch.code() is grpc.StatusCode.UNAUTHENTICATED
        refusal = await refused(connected)
        assert refusal is not None
        assert "trusted no more" in refusal.message
        await get(stays)
