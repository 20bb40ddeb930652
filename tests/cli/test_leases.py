"""`comity lease`, and the options of writes that are about leases."""

import json
import re
import signal

import pytest

from tests import servers
from tests.cli.processes import Comity


def test_a_lease_and_its_keys(comity: Comity) -> None:
    made = comity("lease", "grant", "60", "--author", "ann", "--json").object
    id = str(made["id"])
    assert made == {"id": int(id), "ttl": 60.0, "fence": int(id)}
    comity("put", "a", "1", "--lease", id)
    comity("put", "b", "1", "--guard", id)
    found = comity("lease", "get", id, "--json").object
    assert found.keys() == {
        *("id", "ttl", "expire_time", "author", "key_count", "fence", "remaining", "ends_with_keys"),
    }
    assert (found["id"], found["ttl"], found["author"], found["key_count"]) == (int(id), 60, "ann", 1)
    assert 0 < found["remaining"] <= 60
    printed = dict(line.split(": ") for line in comity("lease", "get", id).text.splitlines())
    assert printed.keys() == found.keys()
    assert (printed["key_count"], printed["ttl"], printed["ends_with_keys"]) == ("1", "60 s", "false")
    said = re.fullmatch(r"lease (\d+): lives 90.5 s\n", comity("lease", "grant", "90.5", "--message", "why").text)
    assert said
    other = said[1]
    assert "author" not in comity("lease", "get", other).text
    assert [found["id"] for found in comity("lease", "list", "--json").objects] == [int(id), int(other)]
    rows = [line.split("\t") for line in comity("lease", "list").text.splitlines()]
    assert rows[0][0] == id
    assert rows[0][2:] == ["60", "1", "ann"]
    assert "left" in comity.on_terminal("lease", "list")
    assert comity("lease", "revoke", id, "--message", "enough").text == f"revoked lease {id}: 1 key deleted\n"
    comity("get", "a", code=4)
    assert comity("lease", "revoke", other, "--json").object == {"lease_id": int(other), "deleted": 0}


def test_no_lease(comity: Comity) -> None:
    comity("put", "a", "1")
    for arguments in (("revoke", "7"), ("get", "7"), ("keepalive", "7"), ("keepalive", "7", "--once")):
        errors = comity("lease", *arguments, code=4).errors
        assert "no lease 7 in namespace" in errors
        assert "it has ended, or there never was one" in errors
    error = comity("put", "a", "1", "--lease", "7", "--json", code=4).error
    assert (error["code"], error["reason"], error["metadata"]["lease_id"]) == ("NOT_FOUND", "LEASE_NOT_FOUND", "7")
    assert comity("lease", "list").text == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("put", "a", "1"),
        ("delete", "a"),
        ("restore", "1"),
        ("checkpoint", "mark"),
        ("merge", "fork-of-nothing"),
        ("lease", "grant", "10"),
    ],
)
def test_a_write_that_is_guarded_by_a_lease_that_has_ended(comity: Comity, arguments: tuple[str, ...]) -> None:
    comity("put", "a", "1")
    error = comity(*arguments, "--guard", "7", "--json", code=3).error
    assert (error["code"], error["reason"]) == ("FAILED_PRECONDITION", "LEASE_LOST")


def test_a_transaction(comity: Comity) -> None:
    id = comity("lease", "grant", "60", "--json").object["id"]
    puts = [{"put": {"key": "a", "value": 1, "lease_id": id}}, {"put": {"key": "b", "value": 1, "ttl": 10.5}}]
    document = json.dumps({"then": puts}).encode()
    done = comity("transact", "-", "--guard", str(id), "--json", stdin=document).object
    own = done["results"][1]["put"]["lease_id"]
    found = [(found["id"], found["ttl"]) for found in comity("lease", "list", "--json").objects]
    assert found == [(id, 60), (own, 10.5)]
    comity("lease", "revoke", str(id))
    comity("transact", "-", "--guard", str(id), stdin=document, code=3)


@pytest.mark.parametrize(
    ("put", "text"),
    [
        ('"lease_id": 0', "then[0].put.lease_id must be above 0"),
        ('"lease_id": "1"', "then[0].put.lease_id must be a whole number"),
        ('"ttl": 0', "then[0].put.ttl must be a number of seconds above 0"),
        ('"ttl": "1s"', "then[0].put.ttl must be a number of seconds above 0"),
        ('"ttl": null', "then[0].put.ttl must be a number of seconds above 0"),
        ('"ttl": true', "then[0].put.ttl must be a number of seconds above 0"),
        ('"ttl": 1e12', "then[0].put.ttl must be a number of seconds above 0, and at most 315576000000"),
        ('"ttl": 1, "lease_id": 1', "then[0].put.ttl must not be there together with lease_id"),
    ],
)
def test_a_document_that_is_wrong(comity: Comity, put: str, text: str) -> None:
    document = f'{{"then": [{{"put": {{"key": "a", "value": 1, {put}}}}}]}}'
    assert text in comity("transact", "-", stdin=document.encode(), code=2).errors


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("lease", "grant", "0"), "0 is no number of seconds above 0"),
        (("lease", "grant", "nan"), "nan is no number of seconds above 0"),
        (("lease", "grant", "ten"), "'ten' is no number of seconds"),
        (("lease", "grant", "0.001"), "ttl"),
        (("lease", "grant", "1e30"), "it is at most 315576000000 seconds"),
        (("lease", "get", "0"), "the ids of leases begin with 1"),
        (("lease", "keepalive", "x"), "'x' is not a whole number"),
        (("put", "a", "1", "--ttl", "-1"), "above 0"),
        (("put", "a", "1", "--ttl", "0.1"), "comity: ttl: must be from 1 to 86400 s\n"),
        (("put", "a", "1", "--ttl", "1", "--lease", "1"), "either --lease or --ttl"),
        (("put", "a", "1", "--guard", "0"), "the ids of leases begin with 1"),
    ],
)
def test_arguments_that_are_wrong(comity: Comity, arguments: tuple[str, ...], text: str) -> None:
    assert text in comity(*arguments, code=2).errors


def test_a_key_with_a_ttl_expires(comity: Comity) -> None:
    with comity.watch("a", "--from", "1") as watching:
        comity("put", "a", "1", "--ttl", "1")
        assert watching.line() == "1\tput\ta\t1"
        assert watching.line() == "2\texpire\ta\t"
    assert re.search(r"lease \d+ .*expired", comity("log").text)


def test_keeping_a_lease_alive(comity: Comity) -> None:
    said = re.fullmatch(r"put a: version 1, revision 1, lease (\d+)\n", comity("put", "a", "1", "--ttl", "60").text)
    assert said
    id = said[1]
    once = comity("lease", "keepalive", id, "--once").text
    assert re.fullmatch(rf"lease {id}: lives (59|60)\.\d s\n", once)
    first = comity("lease", "get", id, "--json").object["expire_time"]
    with comity.started("lease", "keepalive", id) as keeping:
        assert keeping.line() == f"keeping lease {id} alive, which lives 60 s"
        while comity("lease", "get", id, "--json").object["expire_time"] == first:
            pass
        done = keeping.interrupt()
        assert (done.code, done.errors) == (0, "")
    assert comity("get", "a").text == "1\n"


def test_a_lease_that_is_lost_while_it_is_kept_alive(comity: Comity) -> None:
    with comity.started("lease", "grant", "3600", "--keep-alive", "--json") as keeping:
        id = keeping.object()["id"]
        comity("lease", "revoke", str(id))
        done = keeping.ended()
    assert done.code == 3
    assert f"lease {id} is held no longer: the server says that it has ended" in done.errors


def test_a_server_that_is_gone_while_a_lease_is_kept_alive(namespace: str) -> None:
    with servers.start() as server:
        comity = Comity(server.address, namespace)
        with comity.started("lease", "grant", "1", "--keep-alive") as keeping:
            assert re.fullmatch(r"lease \d+: lives 1 s", keeping.line())
            server.process.send_signal(signal.SIGKILL)
            server.wait()
            done = keeping.ended()
    assert done.code == 3
    assert "no renewal was answered" in done.errors
    assert "Traceback" not in done.errors
