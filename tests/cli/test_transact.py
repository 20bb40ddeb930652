"""`comity transact`: a transaction as a JSON document."""

import json
from typing import Any

from tests.cli.processes import Comity, Result


def transact(comity: Comity, document: Any, *arguments: str, code: int = 0) -> Result:
    return comity("transact", *arguments, stdin=json.dumps(document).encode(), code=code)


def test_all_operations(comity: Comity) -> None:
    comity("put", "old/1", "1")
    document = {
        "then": [
            {"put": {"key": "json", "value": {"a": [1, "ö"]}}},
            {"put": {"key": "text", "value": "hi", "content_type": "text/plain"}},
            {"put": {"key": "bytes", "value": {"base64": "AP8="}, "return_previous": True}},
            {"increment": {"key": "count", "delta": -2}},
            {"delete": {"prefix": "old/", "return_previous": True}},
            {"delete": {"key": "nothing"}},
            {"get": {"key": "json"}},
            {"get": {"key": "nothing"}},
            {"list": {"limit": 2, "keys_only": True}},
        ]
    }
    result = transact(comity, document, "--json", "--message", "all at once", "--author", "planner").object
    assert (result["committed"], result["revision"], result["failed"]) == (True, 2, [])
    put, text, data, increment, delete, delete_nothing, get, get_nothing, listed = result["results"]
    assert put == text == data == {"put": {"version": 1}}
    assert increment == {"increment": {"value": -2, "version": 1}}
    assert delete["delete"]["deleted"] == 1
    assert delete["delete"]["previous"][0]["value"] == 1
    assert delete_nothing == {"delete": {"deleted": 0, "previous": [], "previous_truncated": False}}
    assert get["get"]["entry"]["value"] == {"a": [1, "ö"]}
    assert get_nothing == {"get": {}}
    assert [entry["key"] for entry in listed["list"]["entries"]] == ["bytes", "count"]
    assert listed["list"]["more"] is True
    assert "value" not in listed["list"]["entries"][0]

    assert comity("get", "text").data == b"hi\n"
    assert comity("get", "bytes").data == b"\x00\xff"
    commit = comity("log", "--limit", "1", "--json").object
    assert (commit["author"], commit["message"]) == ("planner", "all at once")


def test_all_conditions(comity: Comity) -> None:
    comity("put", "key", "5")
    comity("put", "text", "idle")
    document = {
        "conditions": [
            {"key": "key", "exists": True},
            {"key": "other", "exists": False},
            {"key": "key", "version": 1},
            {"key": "key", "version": 2, "operator": "<"},
            {"key": "key", "mod_revision": 1, "operator": "OPERATOR_GREATER_OR_EQUAL"},
            {"key": "key", "create_revision": 7, "operator": "NOT_EQUAL"},
            {"key": "key", "value": 5},
            {"key": "text", "value": {"base64": "aWRsZQ=="}},
            {"key": "key", "lease_id": 0},
            {"key": "key", "unchanged_since": 1},
            {"prefix": "", "unchanged_since": 2},
        ],
        "then": [{"increment": {"key": "key", "delta": 1}}],
    }
    assert transact(comity, document).text == "committed\trevision 3\nincrement key: 6, version 2\n"


def test_failed_conditions_show_what_was_found(comity: Comity) -> None:
    comity("put", "key", "5")
    comity("put", "a/1", "x")
    document = {
        "conditions": [
            {"key": "key", "version": 7},
            {"key": "absent", "exists": True},
            {"prefix": "a/", "unchanged_since": 1},
            {"key": "key", "exists": True},
        ],
        "then": [{"put": {"key": "key", "value": 6}}],
        "otherwise": [{"get": {"key": "key"}}, {"get": {"key": "absent"}}],
    }
    assert transact(comity, document, code=3).text.splitlines() == [
        "not committed\trevision 2",
        'conditions[0] {"key": "key", "version": 7}: found version 1, revision 1, value 5',
        'conditions[1] {"key": "absent", "exists": true}: found no such key',
        'conditions[2] {"prefix": "a/", "unchanged_since": 1}: found changed by revision 2',
        "get key: 5",
        "get absent: no such key",
    ]
    result = transact(comity, document, "--json", code=3).object
    assert result["committed"] is False
    assert [failed["index"] for failed in result["failed"]] == [0, 1, 2]
    assert result["failed"][0]["current"]["value"] == 5
    assert "current" not in result["failed"][1]
    assert result["failed"][2]["changed_revision"] == 2
    assert result["results"][0]["get"]["entry"]["value"] == 5
    assert comity("get", "key").text == "5\n"


def test_readable_results(comity: Comity) -> None:
    comity("put", "a/1", "1")
    comity("put", "a/2", "2")
    document = {
        "then": [
            {"list": {"prefix": "a/", "limit": 1}},
            {"list": {"prefix": "a/", "keys_only": True}},
            {"put": {"key": "a/1", "value": "x\ty", "return_previous": True}},
            {"delete": {"key": "a/2", "return_previous": True}},
        ]
    }
    assert transact(comity, document).text.splitlines() == [
        "committed\trevision 3",
        "list a/*: 1 and more",
        "    a/1  1",
        "list a/*: 2",
        "    a/1",
        "    a/2",
        "put a/1: version 2, was 1",
        "delete a/2: 1",
        "    a/2  2",
    ]


def test_what_is_left_out_for_its_size_is_said(comity: Comity) -> None:
    for name in "abc":
        comity("put", f"big/{name}", "-", "--bytes", stdin=bytes(600_000))
    comity("put", "big/d", "1")
    document = {"then": [{"delete": {"prefix": "big/", "return_previous": True}}]}
    lines = transact(comity, document, "--message", "first").text.splitlines()
    assert lines[1] == "delete big/*: 4"
    assert lines[-1] == "    and more, left out for their size"
    for name in "abc":
        comity("put", f"big/{name}", "-", "--bytes", stdin=bytes(600_000))
    (result,) = transact(comity, document, "--json").object["results"]
    assert result["delete"]["previous_truncated"] is True


def test_from_a_file_and_once_for_a_request_id(comity: Comity, tmp_path: Any) -> None:
    file = tmp_path / "transaction.json"
    file.write_text('{"then": [{"increment": {"key": "count", "delta": 1}}]}')
    first = comity("transact", str(file), "--request-id", "job:1", "--json").object
    assert comity("transact", str(file), "--request-id", "job:1", "--json").object == first
    assert comity("get", "count").text == "1\n"
    comity("transact", str(tmp_path / "none.json"), code=2)


def test_a_document_that_is_wrong(comity: Comity) -> None:
    refused = transact(comity, {"then": [{"get": {"kee": "a"}}]}, code=2)
    assert refused.errors == (
        "comity: Invalid value for FILE: then[0].get.key is missing (see comity transact --help)\n"
    )
    assert comity("transact", "--json", stdin=b"{", code=2).error["reason"] == "USAGE"


def test_what_the_server_refuses(comity: Comity) -> None:
    twice = {"then": [{"put": {"key": "a", "value": 1}}, {"delete": {"prefix": ""}}]}
    error = transact(comity, twice, "--json", code=2).error
    assert error["violations"][0]["field"].startswith("then[1]")
    comity("put", "text", "hello")
    error = transact(comity, {"then": [{"increment": {"key": "text", "delta": 1}}]}, "--json", code=1).error
    assert (error["code"], error["reason"]) == ("FAILED_PRECONDITION", "NOT_A_NUMBER")
