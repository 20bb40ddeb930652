"""`comity list` and `comity delete`."""

import json

from tests.cli.processes import Comity


def test_the_entries_under_a_prefix(comity: Comity) -> None:
    comity("put", "a/2", '{"b": 1}')
    comity("put", "a/1", "two\twords\n")
    comity("put", "b\n", b"\xff")
    assert comity("list").text == 'a/1\ttwo\\twords\\n\na/2\t{"b":1}\nb\\n\t<1 bytes>\n'
    assert comity("list", "a/", "--keys-only").text == "a/1\na/2\n"
    assert comity("list", "a/", "--revision", "1").text == 'a/2\t{"b":1}\n'
    assert comity("list", "c/").text == ""


def test_one_object_a_line(comity: Comity) -> None:
    comity("put", "a", "1")
    comity("put", "b", "x", "--bytes")
    comity("put", "c\u2028\x7f", '"\u2028"')
    listed = comity("list", "--json")
    assert [(entry["key"], entry["value"]) for entry in listed.objects] == [
        ("a", 1),
        ("b", {"base64": "eA=="}),
        ("c\u2028\x7f", "\u2028"),
    ]
    assert "\u2028" not in listed.text
    assert all("value" not in entry for entry in comity("list", "--json", "--keys-only").objects)


def test_more_than_a_page_and_a_limit(comity: Comity) -> None:
    for start in (0, 1000):
        puts = [{"put": {"key": f"key-{number:04}", "value": number}} for number in range(start, start + 1000)]
        comity("transact", stdin=json.dumps({"then": puts}).encode())
    comity("put", "key-2000", "2000")
    assert [entry["value"] for entry in comity("list", "--json").objects] == list(range(2001))
    assert comity("list", "--limit", "1500", "--keys-only").text.endswith("\nkey-1499\n")
    assert comity("list", "--limit", "1").text == "key-0000\t0\n"


def test_a_reader_that_has_enough_is_no_failure(comity: Comity) -> None:
    puts = [{"put": {"key": f"key-{number:04}", "value": "x" * 500}} for number in range(1000)]
    comity("transact", stdin=json.dumps({"then": puts}).encode())
    done = comity.shell("comity list --keys-only | head -1; comity list | head -1 | wc -l; echo ${PIPESTATUS[*]}")
    assert done.text == "key-0000\n1\n0 0 0\n"
    assert done.errors == ""


def test_a_reader_that_takes_nothing_more_is_a_failure(comity: Comity) -> None:
    comity("put", "key", "1")
    done = comity.shell("comity list > /dev/full; echo $?; comity list >&-; echo $?")
    assert done.text == "1\n0\n"
    assert done.errors == "comity: [Errno 28] No space left on device\n"


def test_delete_a_key(comity: Comity) -> None:
    comity("put", "key", "1")
    assert comity("delete", "key").text == "deleted key, revision 2\n"
    assert "does not exist" in comity("delete", "key", code=4).errors
    assert comity("delete", "key", "--json", code=4).error["reason"] == "KEY_NOT_FOUND"
    comity("put", "key", "1")
    assert comity("delete", "key", "--json").object == {"revision": 4, "deleted": 1}


def test_delete_a_prefix(comity: Comity) -> None:
    for key in ("a/1", "a/2", "b"):
        comity("put", key, "1")
    assert comity("delete", "--prefix", "a/").text == "deleted 2 keys, revision 4\n"
    assert comity("delete", "--prefix", "a/", "--json").object == {"revision": 4, "deleted": 0}
    assert comity("delete", "--prefix", "").text == "deleted 1 key, revision 5\n"


def test_delete_under_conditions(comity: Comity) -> None:
    comity("put", "a", "1")
    comity("put", "b", "1")
    comity("delete", "a", "--if-version", "2", code=3)
    error = comity("delete", "--prefix", "", "--if-revision", "1", "--json", code=3).error
    assert error["metadata"]["changed_revision"] == "2"
    comity("delete", "a", "--if-version", "1", "--message", "done with it", "--request-id", "job:7")
    comity("delete", "--prefix", "", "--if-revision", "3")
    assert comity("log", "--json").objects[1]["message"] == "done with it"


def test_a_delete_has_one_target(comity: Comity) -> None:
    comity("delete", code=2)
    comity("delete", "key", "--prefix", "k", code=2)
    comity("delete", "--prefix", "k", "--if-version", "1", code=2)
