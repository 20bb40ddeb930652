"""A server that others can reach has TLS and authentication, or is said to be insecure; and settings fit together."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from comity_server.access import exposure
from comity_server.listening import ListenError
from comity_server.serve import command
from comity_server.settings import Settings
from comity_server.sources import PROTECTING, load
from tests import servers
from tests.authority import Authority

LACKS = "there is no TLS (--tls-cert and --tls-key) and no authentication (--tokens, --jwks or --tls-client-ca)"


@pytest.mark.parametrize(
    ("host", "is_exposed"),
    [
        ("127.0.0.1", False),
        ("127.1.2.3", False),
        ("127.1", False),
        ("localhost", False),
        ("[::1]", False),
        ("[::ffff:127.0.0.1]", False),
        ("0.0.0.0", True),
        ("0", True),
        ("[::]", True),
        ("[::ffff:0.0.0.0]", True),
        ("[::ffff:10.0.0.1]", True),
        ("10.0.0.1", True),
        ("169.254.0.1", True),
        ("[fe80::1]", True),
        ("[2001:db8::1]", True),
    ],
)
def test_what_others_can_reach(host: str, is_exposed: bool) -> None:
    address = f"{host}:7171"
    found = exposure.exposed(Settings(listen=["127.0.0.1:1", address], store="memory:"))
    assert found == ([address] if is_exposed else [])


@pytest.mark.parametrize(
    ("address", "said", "shows", "names"),
    [
        ("", None, False, True),
        ("127.0.0.1:1", None, False, True),
        ("127.0.0.1:1", False, False, False),
        ("[::]:1", None, True, False),
        ("0.0.0.0:1", True, True, True),
    ],
)
def test_what_others_can_read_of_metrics(address: str, said: bool | None, shows: bool, names: bool) -> None:
    settings = Settings(metrics_listen=address, metrics_namespaces=said, store="memory:")
    assert (exposure.shows_metrics(settings), exposure.names_namespaces(settings)) == (shows, names)


def test_a_name_is_where_it_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    leads: list[str] = []

    def resolve(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 1)) for address in leads]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    settings = Settings(listen=["name:1"], store="memory:")
    leads[:] = ["127.0.0.1"]
    assert not exposure.exposed(settings)
    leads[:] = ["127.0.0.1", "10.0.0.1"]
    assert exposure.exposed(settings) == ["name:1"]


def test_a_name_that_leads_nowhere_is_an_error() -> None:
    with pytest.raises(ListenError, match=r"no-such-host.invalid:1"):
        exposure.exposed(Settings(listen=["no-such-host.invalid:1"], store="memory:"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tls-cert", "cert.pem"], "--tls-cert: is of no use without --tls-key"),
        (["--tls-key", "key.pem"], "--tls-key: is of no use without --tls-cert"),
        (["--tls-client-ca", "ca.pem"], "--tls-client-ca: is of no use without --tls-cert"),
        (["--jwt-issuer", "x"], "--jwt-issuer: is of no use without --jwks"),
        (["--jwt-audience", "x"], "--jwt-audience: is of no use without --jwks"),
        (["--jwt-principal-claim", "x"], "--jwt-principal-claim: is of no use without --jwks"),
        (["--jwt-principal-claim", ""], "--jwt-principal-claim: '' is empty"),
        (
            ["--tls-cert", "/none.pem", "--tls-key", "/none.pem"],
            "Error: tls_cert: /none.pem: No such file or directory",
        ),
        (["--tls-cert", __file__, "--tls-key", "/none.pem"], "Error: tls_key: /none.pem: No such file or directory"),
        (["--tokens", "/dev/null"], "Error: tokens: /dev/null: is not a regular file"),
        (["--policy", "/dev/null"], "Error: policy: /dev/null: is not a regular file"),
        (["--policy", ""], "--policy: names no file"),
        (["--tokens", ""], "--tokens: names no file"),
        (["--jwks", "/none.json"], "Error: jwks: /none.json: No such file or directory"),
        (["--jwt-audience", ""], "--jwt-audience: '' is empty"),
        (["--listen", "0.0.0.0:0"], f"could reach 0.0.0.0:0, and {LACKS}"),
        (["--listen", "127.0.0.1:0", "--listen", "[::]:0"], f"could reach [::]:0, and {LACKS}"),
    ],
)
def test_settings_that_do_not_fit_end_the_start(arguments: Sequence[str], says: str) -> None:
    ended = CliRunner().invoke(command, ["--store", "memory:", *arguments])
    assert ended.exit_code == 2
    assert ended.stderr.count("\n") == 1
    assert says in ended.stderr


@pytest.mark.parametrize(
    ("has", "lacks"),
    [
        (["tls"], "and there is no authentication (--tokens, --jwks or --tls-client-ca)."),
        (["tokens"], "and there is no TLS (--tls-cert and --tls-key)."),
    ],
)
def test_one_of_both_is_not_enough(tmp_path: Path, has: Sequence[str], lacks: str) -> None:
    cert, key = Authority().server().write(tmp_path)
    (tmp_path / "tokens").touch()
    arguments = {
        "tls": ["--tls-cert", str(cert), "--tls-key", str(key)],
        "tokens": ["--tokens", str(tmp_path / "tokens")],
    }
    chosen = [argument for name in has for argument in arguments[name]]
    ended = CliRunner().invoke(command, ["--store", "memory:", "--listen", "0.0.0.0:0", *chosen])
    assert ended.exit_code == 2
    assert lacks in ended.stderr


def test_a_server_is_insecure_that_is_said_to_be() -> None:
    with servers.start("--listen", "0.0.0.0:0", "--insecure") as server:
        (line,) = [line for line in server.log().splitlines() if "others can reach" in line]
        assert server.address in line or "0.0.0.0:0" in line
        assert "--tls-cert" in line
        assert '"level":"warning"' in line.replace(" ", "")


def test_an_empty_variable_of_what_keeps_others_out_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as good as none elsewhere; but here what was to fill it may have failed."""
    files = {name for name, field in Settings.model_fields.items() if field.annotation == Path | None}
    assert files <= set(PROTECTING) <= Settings.model_fields.keys()
    for name in PROTECTING:
        for variable in (f"COMITY_{name.upper()}", f"comity_{name}"):
            with monkeypatch.context() as patch:
                patch.setenv(variable, "")
                ended = CliRunner().invoke(command, ["--store", "memory:"])
            assert ended.exit_code == 2
            assert ended.stderr == f"Error: {variable}: is empty: say what it is to be, or unset it to do without\n"
    monkeypatch.setenv("COMITY_POLICY", "")
    file = tmp_path / "policy.toml"
    assert load({"policy": str(file)}).policy == file, "a flag wins"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (("cert", "cert", None), "Error: tls_key: {cert}: has no private key in PEM"),
        (("key", "key", None), "Error: tls_cert: {key}: has no certificate in PEM"),
        (("cert", "key", "key"), "Error: tls_client_ca: {key}: has no certificate in PEM"),
    ],
)
def test_of_settings_that_name_one_file_the_wrong_one_is_told(
    tmp_path: Path, files: Sequence[str | None], says: str
) -> None:
    written = dict(zip(("cert", "key"), map(str, Authority().server().write(tmp_path)), strict=True))
    options = zip(("--tls-cert", "--tls-key", "--tls-client-ca"), files, strict=True)
    chosen = [argument for option, file in options if file for argument in (option, written[file])]
    ended = CliRunner().invoke(command, ["--store", "memory:", *chosen])
    assert ended.exit_code == 2
    assert ended.stderr == says.format(**written) + "\n"
