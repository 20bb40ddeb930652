"""`comity fork` and `comity merge`."""

import pytest

from comity import sync
from comity.cli.values import TEXT
from comity.codec import JSON
from tests.cli.processes import Comity


@pytest.fixture
def fork(comity: Comity) -> str:
    """A fork of a namespace of three keys, at its revision 3."""
    name = f"{comity.namespace}-fork"
    with sync.connect(comity.address, namespace=comity.namespace) as state:
        for key in ("a", "b", "c"):
            state.put(key, b'{"by": "both"}', content_type=JSON)
        state.fork(name)
    return name


def conflicting(comity: Comity, fork: str) -> None:
    with sync.connect(comity.address, namespace=comity.namespace) as state:
        state.put("a", b'{"by": "us"}', content_type=JSON)
        state.delete("b")
    with sync.connect(comity.address, namespace=fork) as state:
        state.put("a", b'{"by": "them"}', content_type=JSON)
        state.put("b", b"them", content_type=TEXT)
    comity("put", "c", "them", "--namespace", fork)


def test_a_fork_of_an_earlier_revision(comity: Comity) -> None:
    comity("put", "a", "1")
    comity("checkpoint", "mark")
    comity("put", "a", "2")
    for name, ref in (("one", "1"), ("two", "mark")):
        made = comity("fork", f"{comity.namespace}-{name}", "--from", ref, "--json").object
        assert (made["name"], made["parent"], made["fork_revision"]) == (
            f"{comity.namespace}-{name}",
            comity.namespace,
            1,
        )
        assert comity("get", "a", "--namespace", made["name"]).text == "1\n"
    fork = f"{comity.namespace}-one"
    assert f"parent: {comity.namespace}\n" in comity("status", "--namespace", fork).text


def test_the_log_of_a_fork_begins_with_the_fork(comity: Comity) -> None:
    comity("put", "a", "1")
    fork = f"{comity.namespace}-fork"
    comity("fork", fork, "--author", "ann", "--message", "what if", "--request-id", "job:1")
    comity("fork", fork, "--request-id", "job:1")
    lines = comity("log", "--namespace", fork).text.splitlines()
    assert [line for line in lines if not line.startswith("Date:")] == [
        "revision 2",
        "Author: ann",
        "",
        "    what if",
    ]


def test_a_merge(comity: Comity, fork: str) -> None:
    comity("put", "a", "1", "--namespace", fork)
    comity("delete", "b", "--namespace", fork)
    comity("put", "d", "1")
    what = f"{fork} into {comity.namespace}: 1 put, 1 deleted"
    assert comity("merge", fork, "--dry-run").text == f"would merge {what}\n"
    assert comity("merge", fork, "--author", "ann", "--message", "good").text == f"merged {what}, revision 5\n"
    assert comity("list").text == 'a\t1\nc\t{"by":"both"}\nd\t1\n'
    commit = comity("log", "--limit", "1", "--json").object
    assert (commit["author"], commit["message"]) == ("ann", "good")
    again = comity("merge", fork, "--json").object
    assert again == {"merged": True, "revision": 5, "put": 0, "deleted": 0, "conflicts": [], "conflict_count": 0}


def test_conflicts_are_printed_key_by_key(comity: Comity, fork: str) -> None:
    conflicting(comity, fork)
    theirs = [int(comity("get", key, "--namespace", fork, "--json").object["mod_revision"]) for key in "ab"]
    conflicts = (
        "conflict\ta\n"
        '  base\trevision 1\t{"by":"both"}\n'
        '  ours\trevision 4\t{"by":"us"}\n'
        f'  theirs\trevision {theirs[0]}\t{{"by":"them"}}\n'
        "conflict\tb\n"
        '  base\trevision 2\t{"by":"both"}\n'
        "  ours\tabsent\n"
        f"  theirs\trevision {theirs[1]}\tthem\n"
    )
    what = f"{fork} into {comity.namespace}: 2 conflicts"
    assert comity("merge", fork, code=3).text == f"{conflicts}not merged {what}\n"
    assert comity("merge", fork, "--dry-run", code=3).text == f"{conflicts}would not merge {what}\n"
    assert comity("status", "--json").object["revision"] == 5

    found = comity("merge", fork, "--json", code=3).object
    assert (found["merged"], found["conflict_count"]) == (False, 2)
    first, second = found["conflicts"]
    assert [first[side]["value"]["by"] for side in ("base", "ours", "theirs")] == ["both", "us", "them"]
    assert second.keys() == {"key", "base", "theirs"}

    dry = comity("merge", fork, "--strategy", "theirs", "--dry-run").text
    assert dry == f"{conflicts}would merge {what} settled by theirs, 3 put, 0 deleted\n"


@pytest.mark.parametrize(
    ("strategy", "merged"),
    [("ours", {"a": {"by": "us"}, "c": "them"}), ("theirs", {"a": {"by": "them"}, "b": "them", "c": "them"})],
)
def test_a_strategy(comity: Comity, fork: str, strategy: str, merged: dict[str, object]) -> None:
    conflicting(comity, fork)
    done = comity("merge", fork, "--strategy", strategy).text.splitlines()[-1]
    assert f": 2 conflicts settled by {strategy}, " in done
    assert done.endswith(", revision 6")
    assert {key: comity("get", key, "--json").object["content_type"] for key in merged} == {
        key: "application/json" if isinstance(value, dict) else "text/plain; charset=utf-8"
        for key, value in merged.items()
    }
    assert [entry["key"] for entry in comity("list", "--json").objects] == list(merged)


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["fork", "NAMESPACE"], 3, "ALREADY_EXISTS"),
        (["fork", "Upper"], 2, "INVALID_ARGUMENT"),
        (["fork", "f-1", "--from", "none"], 4, "NOT_FOUND"),
        (["fork", "f-1", "--from", "9"], 1, "OUT_OF_RANGE"),
        (["fork", "f-1", "--namespace", "none-such"], 4, "NOT_FOUND"),
        (["merge", "none-such"], 4, "NOT_FOUND"),
        (["merge", "NAMESPACE"], 1, "FAILED_PRECONDITION"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_fails(comity: Comity, arguments: list[str], code: int, error: str) -> None:
    comity("put", "a", "1")
    named = [comity.namespace if argument == "NAMESPACE" else argument for argument in arguments]
    failed = comity(*named, "--json", code=code)
    assert failed.data == b""
    assert failed.error["code"] == error


def test_a_fork_on_a_terminal(comity: Comity, fork: str) -> None:
    conflicting(comity, fork)
    shown = comity.on_terminal("merge", fork)
    assert "\x1b[" in shown
    assert "absent" in shown
