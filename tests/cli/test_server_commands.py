"""`comity serve` and `comity health`, and a server that is not there."""

import signal
import socket
import sqlite3
import time
from pathlib import Path

import pytest

from tests import servers
from tests.cli.processes import DEAD, Comity
from tests.redis_servers import wait_until


def test_health(comity: Comity) -> None:
    assert comity("health").text == "SERVING\n"
    assert comity("health", "comity.v1.StateService", "--json").object == {"status": "SERVING"}
    assert "no service 'none'" in comity("health", "none", code=4).errors
    assert comity("health", "none", "--json", code=4).error["code"] == "NOT_FOUND"


@pytest.mark.parametrize("of", ["--liveness", "--readiness"])
def test_health_says_how_a_server_ends(of: str, tmp_path: Path, namespace: str) -> None:
    """As Docker's HEALTHCHECK asks: with an exit code that is not 2, which Docker has reserved."""
    with servers.start("--drain-delay", "60", "--health-listen", "127.0.0.1:0") as server:
        comity = Comity(server.address, namespace)
        addresses = (server.address, *server.health_addresses)
        assert [comity("health", of, "--address", each).text for each in addresses] == ["SERVING\n"] * 2
        server.process.terminate()
        wait_until("a drain", lambda: '"draining soon' in server.log())
        code, status = (0, "SERVING\n") if of == "--liveness" else (5, "NOT_SERVING\n")
        assert [comity("health", of, "--address", each, code=code).text for each in addresses] == [status] * 2
        comity("put", "key", "1")
        server.process.terminate()
        assert server.wait() == -signal.SIGTERM
        comity("health", of, code=5)


def test_health_is_of_one_thing(comity: Comity) -> None:
    assert "give either SERVICE or --liveness" in comity("health", "a", "--liveness", code=2).errors


def test_health_asks_each_address_once(comity: Comity) -> None:
    assert comity("health", "--address", f"localhost:1,{comity.address}").text == "SERVING\n"
    start = time.monotonic()
    comity("health", "--address", DEAD, "--timeout", "30", code=5)
    assert time.monotonic() - start < 10


def test_health_divides_its_time_among_the_addresses(comity: Comity) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        hangs = f"localhost:{mute.getsockname()[1]}"
        assert comity("health", "--address", f"{hangs},{comity.address}", "--timeout", "1.5").text == "SERVING\n"
        start = time.monotonic()
        failed = comity("health", "--address", f"{hangs},{hangs}", "--timeout", "1", "--json", code=5)
        assert failed.error["code"] == "DEADLINE_EXCEEDED"
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "key"],
        ["put", "key", "1"],
        ["delete", "key"],
        ["list"],
        ["log"],
        ["diff", "1"],
        ["blame"],
        ["checkpoint", "name"],
        ["checkpoints"],
        ["checkpoints", "--delete", "name", "--yes"],
        ["restore", "1"],
        ["fork", "name"],
        ["merge", "name"],
        ["status"],
        ["namespaces"],
        ["namespaces", "--delete", "name", "--yes"],
        ["compact"],
        ["transact"],
        ["health"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_no_server(comity: Comity, arguments: list[str]) -> None:
    failed = comity(*arguments, "--address", DEAD, "--timeout", "0.3", "--json", stdin=b"{}", code=5)
    assert failed.data == b""
    assert failed.error["code"] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert failed.error["message"]


def test_no_server_for_people(comity: Comity) -> None:
    failed = comity("get", "key", "--timeout", "0.3", code=5, COMITY_ADDRESS=DEAD)
    assert failed.errors.startswith("comity: ")


def test_serve_is_the_server(comity: Comity) -> None:
    assert servers.LISTENING.strip() == "listening on"
    help_text = comity("serve", "--help").text
    assert "--listen" in help_text
    assert "--store" in help_text
    assert "comity serve" in help_text
    assert "--listne" in comity("serve", "--listne", code=2).errors
    assert comity("serve", "--store", "none:", code=2).errors.startswith("comity: ")


def test_backup_and_check_are_the_servers(comity: Comity, tmp_path: Path) -> None:
    store, copy = tmp_path / "store.db", tmp_path / "copy.db"
    with servers.start("--store", f"sqlite:{store}") as own:
        comity("put", "key", "1", "--address", own.address)
        comity("checkpoint", "mark", "--address", own.address)
        assert comity("backup", str(copy), "--store", f"sqlite:{store}").text.startswith(f"{copy}: ")
        assert "--force" in comity("backup", str(copy), COMITY_STORE=f"sqlite:{store}", code=1).errors
        comity("backup", str(copy), "--force", COMITY_STORE=f"sqlite:{store}")
    found = comity("check", str(copy), "--json").object
    assert (found["keys"], found["checkpoints"], found["problems"]) == (1, 1, [])
    comity("check", str(tmp_path / "none.db"), code=4)
    assert "--force" in comity("backup", "--help").text
    assert "--chekc" in comity("check", "--chekc", code=2).errors


def test_what_is_wrong_with_a_policy_has_lines_of_its_own_or_is_one_object(tmp_path: Path, namespace: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[[rules]]\nprincipals = []\nnamespaces = ['a']\nallow = ['a']")
    comity = Comity(DEAD, namespace)
    said = comity.shell(f"comity policy check {file}").errors
    assert [line.partition(",")[0] for line in said.splitlines()] == [f"comity: {file}: rule 1"] * 2
    said = comity("policy", "check", str(file), "--json", code=1).error["message"]
    assert said.count(f"{file}: rule 1, ") == 2


def test_check_has_a_terminal_obey_nothing_that_clients_wrote(comity: Comity, tmp_path: Path) -> None:
    store, key = tmp_path / "store.db", "k\x1b[2J\x9b\r\u202e"
    with servers.start("--store", f"sqlite:{store}") as own:
        comity("put", key, "1", "--address", own.address)
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE versions SET checksum = checksum + 1")
    connection.close()
    said = comity("check", str(store), code=1).text
    assert said == f"{store}: k\\x1b[2J\\x9b\\r\\u202e at revision 1 is not what was written\n"
    found = comity("check", str(store), "--json", code=1)
    assert found.text.isascii()
    assert found.object["problems"] == [f"{key} at revision 1 is not what was written"]
