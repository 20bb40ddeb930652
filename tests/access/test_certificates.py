"""What is wrong with files of certificates is told by name, in one line; and of what expires the log reminds."""

from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from comity_server.access import certificates, files
from comity_server.access.certificates import Certificates
from comity_server.access.files import FileError
from tests.authority import DAY, Authority

AUTHORITY = Authority()
ISSUED = AUTHORITY.server()
OTHER = AUTHORITY.server()


def encrypted(pem: bytes) -> bytes:
    key = load_pem_private_key(pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


def of_ed25519() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def cut(pem: bytes) -> bytes:
    return pem[: len(pem) // 2]


def broken(pem: bytes) -> bytes:
    first, rest = pem.split(b"\n", 1)
    return first + b"\nAAAA" + rest[4:]


WRONG = [
    (ISSUED.cert, OTHER.key, None, r"key.pem: is not the key of the first certificate in .*cert.pem"),
    (AUTHORITY.pem + ISSUED.cert, ISSUED.key, None, r"key.pem: is not the key of the first certificate"),
    (b"", ISSUED.key, None, r"cert.pem: has no certificate in PEM"),
    (b"\x30\x82\x00", ISSUED.key, None, r"cert.pem: has no certificate in PEM"),
    (ISSUED.key, ISSUED.key, None, r"cert.pem: has no certificate in PEM"),
    (cut(ISSUED.cert), ISSUED.key, None, r"cert.pem: has a certificate that cannot be read"),
    (broken(ISSUED.cert), ISSUED.key, None, r"cert.pem: has a certificate that cannot be read"),
    (ISSUED.cert, b"", None, r"key.pem: has no private key in PEM"),
    (ISSUED.cert, ISSUED.cert, None, r"key.pem: has no private key in PEM"),
    (ISSUED.cert, encrypted(ISSUED.key), None, r"key.pem: the private key is encrypted, and has to be plain"),
    (ISSUED.cert, cut(ISSUED.key), None, r"key.pem: has a private key that cannot be read|no private key"),
    (ISSUED.cert, broken(ISSUED.key), None, r"key.pem: has a private key that cannot be read"),
    (ISSUED.cert, of_ed25519(), None, r"key.pem: the private key has to be of RSA"),
    (ISSUED.cert, ISSUED.key, b"", r"ca.pem: has no certificate in PEM"),
    (ISSUED.cert, ISSUED.key, broken(AUTHORITY.pem), r"ca.pem: has a certificate that cannot be read"),
]


@pytest.mark.parametrize(("cert", "key", "ca", "says"), WRONG, ids=map(str, range(len(WRONG))))
def test_what_is_wrong_with_files(tmp_path: Path, cert: bytes, key: bytes, ca: bytes | None, says: str) -> None:
    paths = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    for path, content in zip(paths, (cert, key, ca or b""), strict=True):
        path.write_bytes(content)
    with pytest.raises(FileError, match=says) as caught:
        Certificates(paths[0], paths[1], paths[2] if ca is not None else None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lasts", "event"),
    [
        (-DAY, "a certificate has expired"),
        (13 * DAY, "a certificate expires soon"),
        (15 * DAY, None),
    ],
)
def test_the_log_reminds_of_what_expires(tmp_path: Path, lasts: timedelta, event: str | None) -> None:
    cert, key = AUTHORITY.server(lasts=lasts).write(tmp_path)
    with structlog.testing.capture_logs() as logs:
        Certificates(cert, key).remind()
    assert [line["event"] for line in logs] == ([event] if event else [])
    if event:
        assert str(cert) in logs[0]["file"]
        assert "localhost" in logs[0]["subject"]


async def test_a_pair_is_not_taken_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SETTLE_SECONDS", 0.0)
    cert, key = ISSUED.write(tmp_path)
    found = Certificates(cert, key)
    before = found.pair.value
    with structlog.testing.capture_logs() as logs:
        cert.write_bytes(OTHER.cert)
        await found.pair.look()
        assert found.pair.value is before
        assert not logs  # the key may be on its way
        await found.pair.look()
        assert found.pair.value is before
        assert "is not the key" in logs[0]["error"]
        key.write_bytes(OTHER.key)
        await found.pair.look()
        await found.pair.look()
        assert found.pair.value is not before


async def test_of_authorities_that_were_removed_those_go_that_have_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "REMOVED", 2)
    monkeypatch.setattr(files, "SETTLE_SECONDS", 0.0)
    cert, key = ISSUED.write(tmp_path)
    ca = tmp_path / "ca.pem"
    authorities = [Authority(f"a{number}", lasts) for number, lasts in enumerate([DAY, -DAY, DAY, -DAY, DAY])]
    ca.write_bytes(authorities[0].pem)
    server = Certificates(cert, key, ca)
    for authority in authorities[1:]:
        ca.write_bytes(authority.pem)
        await server.pair.look()  # it has to be seen twice
        await server.pair.look()
    clients = [x509.load_pem_x509_certificate(authority.client("ann").cert) for authority in authorities]
    assert [server.distrusts(client) for client in clients] == [True, False, True, False, False]
    assert len(server._removed) == 2
