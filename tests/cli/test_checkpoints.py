"""`comity checkpoint`, `checkpoints`, `restore` and `diff`."""

import re

import pytest

from comity import sync
from comity.cli.values import TEXT
from comity.codec import BYTES, JSON
from tests.cli.processes import Comity

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
def filled(comity: Comity) -> Comity:
    """Revision 2 has the checkpoint `mark`; after it `plan` was changed, `note` deleted and `new` created."""
    with sync.connect(comity.address, namespace=comity.namespace) as state:
        state.put("plan", b'{"step": 1}', content_type=JSON)
        state.put("note", b"hello", content_type=TEXT)
        state.with_options(author="ann").checkpoint("mark", message="just in\tcase", labels={"b": "2", "a": ""})
        state.put("plan", b'{"step": 2}', content_type=JSON)
        state.delete("note")
        state.with_options(author="bob").put("new", b"\xff", content_type=BYTES)
    return comity


def test_a_checkpoint(comity: Comity) -> None:
    comity("put", "a", "1")
    assert comity("checkpoint", "first").text == "checkpoint first: revision 1, 1 key\n"
    comity("put", "b", "1")
    assert comity("checkpoint", "second").text == "checkpoint second: revision 2, 2 keys\n"
    made = comity("checkpoint", "third", "--revision", "1", "--label", "x=y=z", "--author", "ann", "--json").object
    assert made.keys() == {
        *("name", "revision", "create_time", "author", "message", "labels"),
        *("key_count", "size_bytes"),
    }
    assert (made["name"], made["revision"], made["labels"]) == ("third", 1, {"x": "y=z"})
    assert TIME.fullmatch(made["create_time"])
    again = comity("checkpoint", "fourth", "--request-id", "job:4", "--json").object
    comity("put", "a", "2")
    assert comity("checkpoint", "fourth", "--request-id", "job:4", "--json").object == again


def test_the_checkpoints(filled: Comity) -> None:
    filled("checkpoint", "alpha", "--label", "b=2")
    rows = [line.split("\t") for line in filled("checkpoints").text.splitlines()]
    assert [[*row[:2], *row[3:]] for row in rows] == [
        ["alpha", "5", "", "2", "b=2", ""],
        ["mark", "2", "ann", "2", "a=,b=2", "just in\\tcase"],
    ]
    assert all(TIME.fullmatch(row[2]) for row in rows)
    assert [found["name"] for found in filled("checkpoints", "--json", "--label", "b=2").objects] == ["alpha", "mark"]
    assert [found["name"] for found in filled("checkpoints", "--json", "--label", "a=").objects] == ["mark"]
    assert filled("checkpoints", "--label", "b=3").text == ""
    assert "mark" in filled.on_terminal("checkpoints")


def test_a_checkpoint_is_deleted_when_somebody_is_sure(filled: Comity) -> None:
    filled.on_terminal("checkpoints", "--delete", "mark", typed=b"n\n")
    assert [found["name"] for found in filled("checkpoints", "--json").objects] == ["mark"]
    assert "deleted mark" in filled.on_terminal("checkpoints", "--delete", "mark", typed=b"y\n")
    assert filled("checkpoints").text == ""
    filled("checkpoint", "mark")
    assert filled("checkpoints", "--delete", "mark", "--yes", "--json").object == {"deleted": "mark"}
    filled("checkpoints", "--delete", "mark", "--yes", code=4)


def test_restore(filled: Comity) -> None:
    dry = "deleted\tnew\ncreated\tnote\nchanged\tplan\nwould restore mark: 2 put, 1 deleted\n"
    assert filled("restore", "mark", "--dry-run").text == dry
    found = filled("restore", "2", "--dry-run", "--json").object
    assert (found["revision"], found["put"], found["deleted"]) == (5, 2, 1)
    assert [(each["key"], "before" in each, "after" in each) for each in found["differences"]] == [
        ("new", True, False),
        ("note", False, True),
        ("plan", True, True),
    ]
    assert "value" not in found["differences"][0]["before"]
    assert filled("restore", "mark", "--prefix", "n").text == "restored mark: 1 put, 1 deleted, revision 6\n"
    assert filled("get", "plan").text == '{"step": 2}\n'
    once = ("restore", "2", "--message", "back", "--author", "ann", "--request-id", "job:1", "--json")
    done = filled(*once).object
    assert done == {"revision": 7, "put": 1, "deleted": 0, "differences": []}
    filled("put", "plan", "3")
    assert filled(*once).object == done
    assert filled("get", "plan").text == "3\n"
    assert filled("restore", "7").text == "restored 7: 1 put, 0 deleted, revision 9\n"
    assert [entry["key"] for entry in filled("list", "--json").objects] == ["note", "plan"]
    commit = filled("log", "--from", "7", "--to", "7", "--json").object
    assert (commit["author"], commit["message"]) == ("ann", "back")
    assert filled("restore", "5").text == "restored 5: 2 put, 1 deleted, revision 10\n"  # undone


def test_a_large_restore_is_cut_short(comity: Comity) -> None:
    for start in (0, 700):
        puts = ", ".join(f'{{"put": {{"key": "k{start + number:04}", "value": 1}}}}' for number in range(700))
        comity("transact", stdin=f'{{"then": [{puts}]}}'.encode())
    comity("put", "k", "1")
    lines = comity("restore", "0", "--dry-run").text.splitlines()
    assert lines[999:] == ["deleted\tk0998", "... and 401 more", "would restore 0: 0 put, 1401 deleted"]


def test_diff(filled: Comity) -> None:
    assert filled("diff", "mark").text == (
        "diff new\ncreated: version 1, revision 5\nbinary values differ (absent -> 1 bytes)\n"
        "\n"
        "diff note\ndeleted: version 1, revision 2\n--- note\trevision 2\n+++ /dev/null\n@@ -1 +0,0 @@\n-hello\n"
        "\n"
        "diff plan\nchanged: version 1 -> 2, revision 1 -> 3\n--- plan\trevision 1\n+++ plan\trevision 3\n"
        '@@ -1,3 +1,3 @@\n {\n-  "step": 1\n+  "step": 2\n }\n'
    )
    assert filled("diff", "mark", "5") == filled("diff", "2") == filled("diff", "mark")
    assert filled("diff", "mark", "--keys-only").text == "created\tnew\ndeleted\tnote\nchanged\tplan\n"
    assert filled("diff", "5", "mark", "--keys-only").text == "deleted\tnew\ncreated\tnote\nchanged\tplan\n"
    assert filled("diff", "mark", "3", "--keys-only").text == "changed\tplan\n"
    assert filled("diff", "mark", "--prefix", "n", "--keys-only").text == "created\tnew\ndeleted\tnote\n"
    assert filled("diff", "mark", "2").text == ""


def test_a_diff_as_json(filled: Comity) -> None:
    new, note, plan = filled("diff", "mark", "--json").objects
    assert new.keys() == {"key", "after"}
    assert new["after"]["value"] == {"base64": "/w=="}
    assert note.keys() == {"key", "before"}
    assert (plan["key"], plan["before"]["value"], plan["after"]["value"]) == ("plan", {"step": 1}, {"step": 2})
    keys = filled("diff", "mark", "--json", "--keys-only").objects
    assert [found["key"] for found in keys] == ["new", "note", "plan"]
    assert "value" not in keys[0]["after"]


def test_more_than_a_page(comity: Comity) -> None:
    for start in (0, 1000):
        puts = ", ".join(f'{{"put": {{"key": "k{start + number:04}", "value": 1}}}}' for number in range(1000))
        comity("transact", stdin=f'{{"then": [{puts}]}}'.encode())
    comity("put", "k", "1")
    assert comity("diff", "0", "--keys-only").text.count("\n") == 2001
    assert comity("blame").text.count("\n") == 2001


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["checkpoint", "mark"], 3, "ALREADY_EXISTS"),
        (["checkpoint", "12"], 2, "INVALID_ARGUMENT"),
        (["checkpoint", "two words"], 2, "INVALID_ARGUMENT"),
        (["checkpoint", "a", "--revision", "9"], 1, "OUT_OF_RANGE"),
        (["checkpoint", "a", "--label", f"{'k' * 64}=v"], 2, "INVALID_ARGUMENT"),
        (["checkpoint", "a", "--namespace", "none-such"], 4, "NOT_FOUND"),
        (["checkpoints", "--delete", "none", "--yes"], 4, "NOT_FOUND"),
        (["restore", "none"], 4, "NOT_FOUND"),
        (["restore", "9"], 1, "OUT_OF_RANGE"),
        (["restore", "mark", "--if-revision", "4"], 3, "ABORTED"),
        (["restore", "mark", "--namespace", "none-such"], 4, "NOT_FOUND"),
        (["diff", "none"], 4, "NOT_FOUND"),
        (["diff", "mark", "none"], 4, "NOT_FOUND"),
        (["diff", "mark", "9"], 1, "OUT_OF_RANGE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_fails(filled: Comity, arguments: list[str], code: int, error: str) -> None:
    failed = filled(*arguments, "--json", code=code)
    assert failed.data == b""
    assert failed.error["code"] == error
    assert filled("status", "--json").object["revision"] == 5


def test_what_was_compacted(filled: Comity) -> None:
    filled("compact")
    for command in ("restore 3", "diff 3", "checkpoint a --revision 3", "fork f-1 --from 3", "blame --revision 3"):
        assert filled(*command.split(), "--json", code=1).error["reason"] == "COMPACTED"
    assert filled("restore", "mark").text == "restored mark: 2 put, 1 deleted, revision 6\n"
