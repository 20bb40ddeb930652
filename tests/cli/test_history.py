"""`comity log` and `comity blame`."""

import asyncio
import json
import re

from comity import connect
from tests.cli.processes import Comity
from tests.servers import Server

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_the_log_is_of_blocks(comity: Comity) -> None:
    comity("put", "a", "1", "--author", "ann", "--message", "begin\n\nwith\tcare")
    comity("put", "a\n", "1")
    then = [{"put": {"key": "a", "value": 2}}, {"delete": {"key": "a\n"}}, {"increment": {"key": "n", "delta": 1}}]
    comity("transact", stdin=json.dumps({"then": then}).encode())
    assert TIME.sub("TIME", comity("log").text) == (
        "revision 3\nDate:   TIME\n\n    put a v2\n    delete a\\n\n    put n v1\n"
        "\nrevision 2\nDate:   TIME\n\n    put a\\n v1\n"
        "\nrevision 1\nAuthor: ann\nDate:   TIME\n\n    begin\n    \n    with\tcare\n\n    put a v1\n"
    )


def test_the_log_shows_the_trace(server: Server, comity: Comity) -> None:
    trace = f"00-{1:032x}-{2:016x}-01"

    async def put() -> None:
        async with connect(server.address, namespace=comity.namespace, trace_parent=lambda: trace) as state:
            await state.put("a", 1)

    asyncio.run(put())
    assert f"\nTrace:  {trace}\n" in comity("log").text


def test_the_log_on_one_line_each(comity: Comity) -> None:
    comity("put", "a/1", "1", "--author", "planner", "--message", "first\tone")
    comity("put", "b", "2")
    comity("delete", "a/1", "--author", "worker")
    lines = [line.split("\t") for line in comity("log", "--oneline").text.splitlines()]
    assert [[revision, *rest] for revision, _, *rest in lines] == [
        ["3", "worker", "delete a/1", ""],
        ["2", "", "put b v1", ""],
        ["1", "planner", "put a/1 v1", "first\\tone"],
    ]
    assert all(line[1].endswith("Z") for line in lines)


def test_which_commits_of_the_log(comity: Comity) -> None:
    for number in range(1, 6):
        comity("put", f"{'even' if number % 2 == 0 else 'odd'}/{number}", str(number), "--author", f"a{number % 2}")

    def revisions(*arguments: str) -> list[int]:
        return [commit["revision"] for commit in comity("log", "--json", *arguments).objects]

    assert revisions() == [5, 4, 3, 2, 1]
    assert revisions("--oldest-first", "--limit", "2") == [1, 2]
    assert revisions("--from", "2", "--to", "4") == [4, 3, 2]
    assert revisions("even/") == [4, 2]
    assert revisions("--author", "a1") == [5, 3, 1]
    assert len(comity("log", "--json", COMITY_AUTHOR="a1").objects) == 5  # that one is for writes
    assert revisions("none/") == []
    assert comity("log", "--to", "9", "--json", code=1).error["code"] == "OUT_OF_RANGE"


def test_a_commit_as_json(comity: Comity) -> None:
    comity("transact", stdin=b'{"then": [{"put": {"key": "a", "value": 1}}, {"put": {"key": "b", "value": "2"}}]}')
    commit = comity("log", "--json").object
    assert commit.keys() == {"revision", "commit_time", "author", "message", "trace_parent", "events"}
    assert [(event["type"], event["entry"]["key"], event["entry"]["value"]) for event in commit["events"]] == [
        ("EVENT_TYPE_PUT", "a", 1),
        ("EVENT_TYPE_PUT", "b", "2"),
    ]


def test_a_large_commit_is_cut_short(comity: Comity) -> None:
    puts = ", ".join(f'{{"put": {{"key": "k{number:02}", "value": 1}}}}' for number in range(28))
    comity("transact", stdin=f'{{"then": [{puts}]}}'.encode())
    line = comity("log", "--oneline").text
    assert line.split("\t")[3] == "put k00 v1, put k01 v1, put k02 v1, put k03 v1, put k04 v1, 23 more"
    changes = [line.strip() for line in comity("log").text.splitlines() if line.startswith("    ")]
    assert changes == [*(f"put k{number:02} v1" for number in range(20)), "8 more"]


def test_blame(comity: Comity) -> None:
    comity("put", "a/1", "1", "--author", "ann", "--message", "first\tone")
    comity("put", "a/2\n", "1")
    comity("put", "b", "1", "--author", "bob")
    comity("put", "a/1", "2", "--author", "bob", "--message", "second")
    rows = [line.split("\t") for line in comity("blame", "a/").text.splitlines()]
    assert [[revision, author, *rest] for revision, author, _, *rest in rows] == [
        ["4", "bob", "a/1", "second"],
        ["2", "", "a/2\\n", ""],
    ]
    assert all(TIME.fullmatch(row[2]) for row in rows)
    assert comity("blame", "a/1", "--revision", "3").text.endswith("\ta/1\tfirst\\tone\n")
    assert comity("blame", "none/").text == ""
    assert comity("blame", "--revision", "9", "--json", code=1).error["reason"] == "REVISION_IN_FUTURE"


def test_blame_as_json(comity: Comity) -> None:
    comity("put", "a", "1", "--author", "ann", "--message", "why")
    found = comity("blame", "--json").object
    assert found.keys() == {"entry", "author", "message", "trace_parent"}
    assert (found["author"], found["message"], found["trace_parent"]) == ("ann", "why", "")
    assert (found["entry"]["key"], found["entry"]["mod_revision"]) == ("a", 1)
    assert "value" not in found["entry"]
