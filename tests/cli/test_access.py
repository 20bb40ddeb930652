"""Commands that connect by TLS, with the token of a file."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.authority import Authority
from tests.cli.processes import Comity
from tests.client.secured import tokens

TOKEN = f"cmt_{'a' * 43}"
OTHER = f"cmt_{'b' * 43}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an authority, and of a certificate that it has issued."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority()
    authority.write(folder)
    authority.server().write(folder)
    return folder


@pytest.fixture(scope="module")
def ca(folder: Path) -> Path:
    return folder / "ca.pem"


@pytest.fixture(scope="module")
def address(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server by TLS that knows who calls by tokens."""
    known = tmp_path_factory.mktemp("tokens") / "tokens"
    known.write_text(tokens(ann=TOKEN))
    with servers.start(
        *("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"), "--tokens", str(known)),
    ) as running:
        yield running.address


@pytest.fixture
def comity(address: str, namespace: str) -> Comity:
    return Comity(address, namespace)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


def test_flags_and_variables(comity: Comity, ca: Path, token: Path) -> None:
    flags = ("--tls-ca", str(ca), "--token-file", str(token))
    comity("put", "a", "1", *flags)
    assert comity("get", "a", COMITY_TLS_CA=str(ca), COMITY_TOKEN=TOKEN).text == "1\n"
    assert comity("get", "a", *flags, COMITY_TLS="0", COMITY_TLS_CA="none", COMITY_TOKEN=OTHER).text == "1\n"
    assert comity("health", *flags).text == "SERVING\n"
    assert [found["author"] for found in comity("log", "--json", *flags).objects] == ["ann"]


def test_what_a_command_starts_has_them_too(comity: Comity, ca: Path, token: Path) -> None:
    flags = ("--tls-ca", str(ca), "--token-file", str(token))
    shown = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('COMITY_T')}))"
    ran = comity("lock", "name", *flags, "--", sys.executable, "-c", shown, COMITY_TOKEN=OTHER)
    assert json.loads(ran.text) == {
        "COMITY_TLS": "1",
        "COMITY_TLS_CA": str(ca),
        "COMITY_TOKEN": "",
        "COMITY_TOKEN_FILE": str(token),
    }
    found = comity("bench", "--seconds", "0.1", "--tasks", "1", "--workload", "put", "--json", *flags).object
    assert found["operations"] > 0
    assert not found["errors"]


def test_what_goes_wrong_is_one_line(comity: Comity, ca: Path, token: Path, tmp_path: Path) -> None:
    stranger = Authority("stranger").write(tmp_path)
    flags = ("--tls-ca", str(ca))
    assert (
        "a bearer token is required (--token-file or COMITY_TOKEN_FILE)\n" in comity("get", "a", *flags, code=1).errors
    )
    refused = comity("get", "a", "--json", *flags, code=1, COMITY_TOKEN=OTHER)
    assert refused.error["code"] == "UNAUTHENTICATED"
    assert OTHER not in refused.errors
    why = "signed by none of the authorities that are trusted here"
    assert why in comity("get", "a", "--tls-ca", str(stranger), "--timeout", "60", code=5).errors
    assert "expects TLS" in comity("get", "a", "--no-tls", "--timeout", "0.5", code=5).errors
    for arguments, complaint in (
        (["--tls-ca", str(tmp_path / "none")], "TLS ca: cannot read"),
        (["--tls-ca", str(token)], "holds no certificate in PEM"),
        (["--tls-client-cert", str(token)], "TLS cert is given without TLS key"),
        (["--tls-server-name", "a b"], "TLS server_name must be a host name"),
        (["--token-file", str(tmp_path / "none")], "the token file: cannot read"),
        (["--token-file", ""], "--token-file is empty"),
        (["--tls-ca", ""], "--tls-ca is empty"),
        (["--address", "10.0.0.1", "--token-file", str(token)], "is not sent in plain text to another machine"),
    ):
        assert complaint in comity("get", "a", *arguments, code=2).errors
