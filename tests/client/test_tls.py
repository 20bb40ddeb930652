"""Connections by TLS."""

import asyncio
import os
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import comity
from comity import retry, sync
from comity.certificates import Certificates
from tests import servers
from tests.authority import DAY, Authority, Pair
from tests.client.secured import listener
from tests.servers import Server

HERE = "127.0.0.1"
SECONDS = 30.0  # that a handshake may take
STRANGE = "its certificate is signed by none of the authorities that are trusted here (COMITY_TLS_CA)"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the files of certificates that several tests use."""
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def ca(authority: Authority, folder: Path) -> Path:
    """The file of the authority's certificate."""
    return authority.write(folder)


@pytest.fixture(scope="module")
def stranger() -> Authority:
    return Authority("stranger")


@pytest.fixture(scope="module")
def own(authority: Authority, folder: Path) -> Pair:
    """A client's own certificate."""
    return authority.client("ann").write(folder, "client")


@pytest.fixture(scope="module")
def mutual(authority: Authority, ca: Path, folder: Path) -> Iterator[Server]:
    """A server that asks its clients for certificates."""
    pair = authority.server(HERE).write(folder, "server")
    with servers.start(
        *("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), "--tls-client-ca", str(ca))
    ) as running:
        yield running


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates that do not fit are taken for replaced ones for a moment only."""
    monkeypatch.setattr(retry, "ROTATION_SECONDS", 0.1)


async def test_calls_and_streams(mutual: Server, own: Pair, namespace: str, ca: Path) -> None:
    tls = comity.TLS(ca, own.cert, own.key)
    async with comity.connect(mutual.address, namespace=namespace, tls=tls) as state, state.lease(5.0) as lease:
        await state.put("a", 1, lease=lease)
        await state.wait_for_ready()
        async with state.watch("a", initial=True) as watch:
            resync = await anext(watch)
            assert isinstance(resync, comity.Resync)
            assert [entry.value for entry in resync.entries] == [1]
        assert await state.renew_lease(lease.id) > 0
        assert [commit.author async for commit in state.history()] == ["ann", "ann"]


async def test_two_event_loops_and_threads(mutual: Server, own: Pair, namespace: str, ca: Path) -> None:
    tls = comity.TLS(ca, own.cert, own.key)
    client = comity.connect(mutual.address, namespace=namespace, tls=tls)
    with sync.connect(mutual.address, namespace=namespace, tls=tls) as other:
        await client.put("a", 1)
        entry = await asyncio.to_thread(other.get, "a")
        assert entry is not None
        assert entry.value == 1
    await asyncio.to_thread(asyncio.run, client.put("a", 2))
    await client.close()


async def test_the_variables_say_it_all(
    mutual: Server, own: Pair, namespace: str, monkeypatch: pytest.MonkeyPatch, ca: Path
) -> None:
    for name, value in {"CA": ca, "CLIENT_CERT": own.cert, "CLIENT_KEY": own.key}.items():
        monkeypatch.setenv(f"COMITY_TLS_{name}", str(value))
    async with comity.connect(mutual.address, namespace=namespace) as state:
        await state.put("a", 1)
    assert comity.connect(tls=False)._access.tls is None
    monkeypatch.setenv("COMITY_TLS", "0")
    assert comity.connect()._access.tls is None
    told = comity.connect(tls=True)._access.tls
    assert told == comity.TLS(ca, own.cert, own.key)
    monkeypatch.setenv("COMITY_TLS", "perhaps")
    with pytest.raises(ValueError, match="COMITY_TLS is 1 or 0, not 'perhaps'"):
        comity.connect()


async def test_a_server_may_be_for_another_name(authority: Authority, hasty: None, ca: Path, tmp_path: Path) -> None:
    pair = authority.server("state.test").write(tmp_path)
    tls = comity.TLS(ca, server_name="state.test")
    async with listener(pair) as address, comity.connect(address, tls=tls, timeout=20) as state:
        with pytest.raises(comity.Unimplemented):  # it was reached
            await state.namespace_info()


@pytest.mark.parametrize(
    ("of", "name", "expired", "why"),
    [
        (
            "stranger",
            HERE,
            False,
            STRANGE,
        ),
        ("authority", "state.test", False, "its certificate is for another name"),
        ("authority", HERE, True, "its certificate has expired"),
        ("", "", False, "it does not speak TLS: connect in plain text (COMITY_TLS=0), or to the port that does"),
    ],
    ids=["stranger", "name", "expired", "plain"],
)
async def test_what_cannot_be_a_connection_fails_soon(
    authority: Authority,
    stranger: Authority,
    hasty: None,
    of: str,
    name: str,
    expired: bool,
    why: str,
    ca: Path,
    tmp_path: Path,
) -> None:
    signs = {"authority": authority, "stranger": stranger}.get(of)
    pair = None if signs is None else signs.server(name, lasts=-DAY if expired else DAY).write(tmp_path)
    tls = comity.TLS(ca)
    async with listener(pair) as address, comity.connect(address, tls=tls, timeout=0.5) as state:
        for call in (state.get("a"), state.watch("a").ready(), state.delete_namespace()):
            with pytest.raises(comity.Unavailable) as raised:
                await asyncio.wait_for(call, 50)
            assert raised.value.reason == "TLS_FAILED"
            assert raised.value.message == f"cannot reach {address}: {why}"


async def test_public_authorities_have_not_signed_it(authority: Authority, hasty: None, tmp_path: Path) -> None:
    async with listener(authority.server(HERE).write(tmp_path)) as address, comity.connect(address, tls=True) as state:
        with pytest.raises(comity.Unavailable, match="signed by none of the authorities that are trusted here"):
            await state.get("a")


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ("plain", "it expects TLS, and this was plain text: connect by TLS (COMITY_TLS=1, COMITY_TLS_CA)"),
        ("nothing", "it asks for a client certificate (COMITY_TLS_CLIENT_CERT, COMITY_TLS_CLIENT_KEY)"),
        ("stranger", "it does not accept the client certificate"),
    ],
    ids=["plain", "nothing", "stranger"],
)
async def test_a_server_that_just_hangs_up_is_asked_why(
    mutual: Server, stranger: Authority, hasty: None, shown: str, why: str, ca: Path, tmp_path: Path
) -> None:
    foreign = stranger.client("ann").write(tmp_path)
    tls = {
        "plain": None,
        "nothing": comity.TLS(ca),
        "stranger": comity.TLS(ca, foreign.cert, foreign.key),
    }[shown]
    async with comity.connect(mutual.address, tls=tls, timeout=100) as state:
        for call in (state.get("a"), state.watch("a").ready(), state.delete_namespace()):
            with pytest.raises(comity.Unavailable) as raised:
                await asyncio.wait_for(call, 50)
            assert raised.value.reason == "TLS_FAILED"
            assert raised.value.message == f"cannot reach {mutual.address}: {why}"


@pytest.mark.parametrize("speaks", ["nothing", "TLS"])
async def test_what_is_between_may_hang_up_since_its_server_is_away(
    authority: Authority, own: Pair, hasty: None, speaks: str, ca: Path, tmp_path: Path
) -> None:
    """Another try may help, for as long as there is time."""
    context = tls = None
    if speaks == "TLS":
        pair = authority.server(HERE).write(tmp_path)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(pair.cert, pair.key)
        tls = comity.TLS(ca, own.cert, own.key)
    with hanging_up(context) as (address, tries):
        async with comity.connect(address, tls=tls, timeout=1.5) as state:
            with pytest.raises(comity.Unavailable, match="it closed the connection at once") as raised:
                await state.get("a")
    assert raised.value.reason == "UNREACHABLE"
    assert len(tries) > 3


@contextmanager
def hanging_up(context: ssl.SSLContext | None) -> Iterator[tuple[str, list[object]]]:
    """Something that closes each connection as soon as it is made: its address, and who made them. It is of threads,
    each of which sees to the end of its connection, also to one that ends within the handshake."""
    tries: list[object] = []

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(SECONDS)
            with suppress(OSError), context.wrap_socket(self.request, True) if context else self.request:
                tries.append(self.client_address)

    with socketserver.ThreadingTCPServer((HERE, 0), HangUp) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"{HERE}:{server.server_address[1]}", tries
        finally:
            server.shutdown()
            thread.join()


async def test_new_certificates_on_both_sides_go_unnoticed(tmp_path: Path, namespace: str) -> None:
    """The old ones hold no more on either side. Calls that meet the change wait for it."""
    old, new = Authority("old"), Authority("new")
    trusted = old.write(tmp_path)
    serving, calling = old.server(HERE).write(tmp_path, "serving"), old.client("ann").write(tmp_path, "calling")
    with servers.start(
        *("--store", f"sqlite:{tmp_path / 'state.db'}", "--tls-client-ca", str(trusted)),
        *("--tls-cert", str(serving.cert), "--tls-key", str(serving.key)),
    ) as server:
        tls = comity.TLS(trusted, calling.cert, calling.key)
        async with comity.connect(server.address, namespace=namespace, tls=tls, timeout=60) as state:
            watch = state.watch("a")
            await watch.ready()
            await state.put("a", 1)
            server.kill()
            again = asyncio.ensure_future(state.put("a", 2))
            new.write(tmp_path)
            new.server(HERE).write(tmp_path, "serving")
            new.client("ann").write(tmp_path, "calling")
            await asyncio.to_thread(server.restart)
            await again
            events = [await anext(watch), await anext(watch)]
            assert [event.entry.value for event in events if isinstance(event, comity.Event)] == [1, 2]


def test_files_are_taken_whole_or_not_at_all(
    tmp_path: Path, authority: Authority, stranger: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.client("ann").write(tmp_path)
    other = stranger.client("ann")
    certificates = Certificates(comity.TLS(cert=pair.cert, key=pair.key))
    first = certificates.current()
    pair.key.write_bytes(other.key)
    assert certificates.current() == first
    assert "is not the key of the certificate in" in caplog.text
    pair.cert.write_bytes(other.cert)
    second = certificates.current()
    assert (second.cert, second.key) == (other.cert, other.key)
    pair.cert.unlink()
    assert certificates.current() == second
    assert f"cannot read {pair.cert}" in caplog.text


def test_files_that_cannot_be_used_are_refused(tmp_path: Path, authority: Authority, own: Pair) -> None:
    garbage, encrypted = tmp_path / "garbage.pem", tmp_path / "encrypted.pem"
    garbage.write_bytes(b"\xff\x00 no certificate")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    huge = tmp_path / "huge.pem"
    huge.write_bytes(b"\n" * (1024 * 1024 + 1))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    other = authority.client("ann").write(tmp_path)
    _encrypt(own.key, encrypted)
    for tls, why in (
        (comity.TLS(tmp_path / "none"), f"TLS ca: cannot read {tmp_path / 'none'}: No such file or directory"),
        (comity.TLS(tmp_path), f"TLS ca: {tmp_path} is no file"),
        (comity.TLS(pipe), f"TLS ca: {pipe} is no file"),
        (comity.TLS(garbage), f"TLS ca: {garbage} holds no certificate in PEM"),
        (comity.TLS(broken), f"TLS ca: {broken} holds a certificate that is malformed"),
        (comity.TLS(huge), f"TLS ca: {huge} is larger than 1048576 bytes"),
        (comity.TLS(cert=own.key, key=own.key), f"TLS cert: {own.key} holds no certificate in PEM"),
        (comity.TLS(cert=own.cert, key=garbage), f"TLS key: {garbage} holds no private key in PEM"),
        (comity.TLS(cert=own.cert, key=encrypted), f"TLS key: {encrypted} is encrypted, and there is no way to say"),
        (comity.TLS(cert=own.cert, key=other.key), f"TLS key: {other.key} is not the key of the certificate in"),
    ):
        with pytest.raises(ValueError, match="TLS") as raised:
            comity.connect(tls=tls)
        assert str(raised.value).startswith(why)


@pytest.mark.parametrize(
    ("arguments", "kind", "why"),
    [
        ({"ca": 1}, TypeError, "TLS ca must be a path, not int"),
        ({"ca": b"a"}, TypeError, "TLS ca must be a path, not bytes"),
        ({"ca": ""}, ValueError, "TLS ca must be a path, not ''"),
        ({"ca": "a\0b"}, ValueError, "TLS ca must be a path"),
        ({"cert": "a"}, ValueError, "TLS cert is given without TLS key"),
        ({"key": "a"}, ValueError, "TLS key is given without TLS cert"),
        ({"server_name": 1}, TypeError, "TLS server_name must be a str, not int"),
        ({"server_name": ""}, ValueError, "TLS server_name must be a host name"),
        ({"server_name": "a b"}, ValueError, "TLS server_name must be a host name"),
        ({"server_name": "a" * 300}, ValueError, "TLS server_name must be a host name"),
    ],
)
def test_what_is_no_path_or_name_is_refused(arguments: dict[str, object], kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        comity.TLS(**arguments)  # type: ignore[arg-type]


def test_paths_hold_wherever_the_process_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ca: Path) -> None:
    monkeypatch.chdir(ca.parent)
    tls = comity.TLS(ca.name)
    monkeypatch.chdir(tmp_path)
    assert comity.connect(tls=tls)._access.tls == comity.TLS(ca)


def test_tls_is_what_it_says() -> None:
    with pytest.raises(TypeError, match="tls must be True, False"):
        comity.connect(tls="yes")  # type: ignore[arg-type]


def _encrypt(key: Path, path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    path.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
