"""`comity put` and `comity get`: what goes in comes out, and what may stop it."""

import base64
from typing import Any

import pytest

from tests.cli.processes import Comity

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
JSON = "application/json"


def test_a_value_comes_back_as_it_was_given(comity: Comity) -> None:
    assert comity("put", "plan", '{"step": 1}').text == "put plan: version 1, revision 1\n"
    assert comity("get", "plan").text == '{"step": 1}\n'


@pytest.mark.parametrize(
    ("argument", "content_type", "value"),
    [
        ('{"step": 1.50, "é": [null, true]}', JSON, {"step": 1.5, "é": [None, True]}),
        ("7", JSON, 7),
        ("-5", JSON, -5),
        ("-1.5e3", JSON, -1500.0),
        ('"text"', JSON, "text"),
        ("hello wörld", TEXT, b"hello w\xc3\xb6rld"),
        ("", TEXT, b""),
        ("NaN", TEXT, b"NaN"),
        ("1e999", TEXT, b"1e999"),
        (r'"\ud800"', TEXT, rb'"\ud800"'),
        ("[" * 100_000, TEXT, b"[" * 100_000),
        (b"\xff\x01", BYTES, b"\xff\x01"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_json_if_it_parses_else_text_else_bytes(
    comity: Comity, argument: str | bytes, content_type: str, value: Any
) -> None:
    comity("put", "key", argument)
    entry = comity("get", "key", "--json").object
    assert entry["content_type"] == content_type
    assert entry["value"] == ({"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value)


def test_a_value_of_an_option_may_look_like_a_negative_number(comity: Comity) -> None:
    comity("put", "key", "-5", "--message", "-7")
    assert comity("get", "key", "--json").object["value"] == -5
    assert comity("log", "--json").object["message"] == "-7"


def test_options_keep_their_values_and_arguments_their_order(comity: Comity) -> None:
    comity("put", "key", "v", "--message", "-5")
    assert comity("log", "--json").object["message"] == "-5"
    comity("put", "key", "-5", "--if-version", "1")
    assert comity("get", "key").text == "-5\n"
    comity("put", "-7", "--message=-8", "--", "--json")
    assert comity("get", "--", "-7").text == "--json\n"
    assert "requires an argument" in comity("put", "key", "v", "--message", code=2).errors
    assert "from 0 to" in comity("put", "key", "v", "--if-version", "-1", code=2).errors


def test_the_entry_as_json(comity: Comity) -> None:
    comity("put", "key", "1")
    assert comity("put", "key", "2", "--json").object == {"revision": 2, "version": 2}
    entry = comity("get", "key", "--json").object
    assert entry.pop("update_time").endswith("Z")
    assert entry == {
        "key": "key",
        "value": 2,
        "content_type": JSON,
        "version": 2,
        "create_revision": 1,
        "mod_revision": 2,
        "lease_id": 0,
    }


@pytest.mark.parametrize(
    ("stdin", "arguments", "content_type", "read"),
    [
        (b' {"a":\n1}\n', [], JSON, b'{"a":\n1}\n'),
        (b"3\n", [], JSON, b"3\n"),
        (b"two\nlines\n", [], TEXT, b"two\nlines\n"),
        (b"no line break", [], TEXT, b"no line break\n"),
        (b"\x00\xff\n", [], BYTES, b"\x00\xff\n"),
        (b"3\n", ["--bytes"], BYTES, b"3\n"),
        (b"raw", ["--bytes"], BYTES, b"raw"),
        (b"3\n", ["--content-type", "text/csv"], "text/csv", b"3\n"),
        (b"", [], TEXT, b"\n"),
    ],
)
def test_a_value_from_standard_input(
    comity: Comity, stdin: bytes, arguments: list[str], content_type: str, read: bytes
) -> None:
    comity("put", "key", "-", *arguments, stdin=stdin)
    assert comity("get", "key").data == read
    assert comity("get", "key", "--json").object["content_type"] == content_type


def test_json_loses_the_white_space_around_it(comity: Comity) -> None:
    # So that a piped number can be incremented.
    comity("put", "count", "-", stdin=b"41\n")
    comity("transact", stdin=b'{"then": [{"increment": {"key": "count", "delta": 1}}]}')
    assert comity("get", "count").text == "42\n"


def test_what_is_no_json_in_spite_of_its_content_type_is_shown_as_bytes(comity: Comity) -> None:
    comity("put", "key", "{", "--content-type", JSON)
    assert comity("get", "key").text == "{\n"
    assert comity("get", "key", "--json").object["value"] == {"base64": "ew=="}


def test_an_earlier_revision(comity: Comity) -> None:
    comity("put", "key", "old")
    comity("put", "key", "new")
    assert comity("get", "key", "--revision", "1").text == "old\n"
    assert comity("get", "key", "--revision", "9", "--json", code=1).error["reason"] == "REVISION_IN_FUTURE"


def test_an_absent_key(comity: Comity) -> None:
    missing = comity("get", "no\x1b\nkey", code=4)
    assert missing.data == b""
    assert missing.errors == "comity: the key 'no\\x1b\\nkey' does not exist\n"
    error = comity("get", "key", "--json", code=4)
    assert error.data == b""
    assert error.error == {
        "code": "NOT_FOUND",
        "reason": "KEY_NOT_FOUND",
        "message": "the key 'key' does not exist",
        "metadata": {"key": "key"},
    }


def test_conditions(comity: Comity) -> None:
    comity("put", "key", "1", "--if-version", "0")
    comity("put", "key", "2", "--if-revision", "1")
    comity("put", "key", "3", "--if-version", "2")
    assert comity("put", "key", "4", "--if-version", "0", code=3).errors.startswith("comity: ")
    error = comity("put", "key", "4", "--if-revision", "1", "--json", code=3).error
    assert (error["code"], error["reason"]) == ("ABORTED", "CONFLICT")
    assert error["metadata"]["version"] == "3"
    assert comity("get", "key").text == "3\n"


def test_a_repeat_with_the_same_request_id_is_applied_once(comity: Comity) -> None:
    first = comity("put", "key", "1", "--request-id", "job", "--json").object
    assert comity("put", "key", "1", "--request-id", "job", "--json").object == first
    assert comity("put", "key", "1", "--request-id", "job:1", "--json").object == first
    assert comity("put", "key", "1", "--request-id", "job:2", "--json").object == {"revision": 2, "version": 2}
    assert comity("put", "key", "1", "--request-id", "a:b", "--json").object == {"revision": 3, "version": 3}


def test_author_and_message_go_to_the_history(comity: Comity) -> None:
    comity("put", "key", "1", "--author", "plänner", "--message", "wärum")
    comity("put", "key", "2", COMITY_AUTHOR="worker")
    newest, oldest = comity("log", "--json").objects
    assert (newest["author"], newest["message"]) == ("worker", "")
    assert (oldest["author"], oldest["message"]) == ("plänner", "wärum")


def test_an_option_wins_over_its_variable(comity: Comity) -> None:
    comity("put", "key", "1", "--namespace", comity.namespace + "-two")
    comity("get", "key", code=4)
    comity("get", "key", COMITY_NAMESPACE=comity.namespace + "-two")
    comity("get", "key", "--namespace", comity.namespace + "-two", "--address", comity.address, COMITY_ADDRESS="x:1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["put", "", "1"],
        ["put", "k" * 1025, "1"],
        ["put", "key", "1", "--namespace", "Not A Name"],
        ["put", "key", "1", "--content-type", "x" * 300],
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_what_the_server_finds_wrong_with_the_request(comity: Comity, arguments: list[str]) -> None:
    comity(*arguments, code=2)
    error = comity(*arguments, "--json", code=2).error
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert error["violations"][0]["field"]


def test_a_value_that_is_too_large(comity: Comity) -> None:
    too_large = b"x" * (2 * 1024 * 1024)
    assert comity("put", "key", "-", "--json", stdin=too_large, code=2).error["code"] == "INVALID_ARGUMENT"
    assert comity("put", "key", "-", "--json", stdin=too_large * 9, code=1).error["code"] == "RESOURCE_EXHAUSTED"
