"""`comity log`, `status`, `namespaces`, `compact`."""

from tests.cli.processes import Comity


def test_the_log_is_newest_first(comity: Comity) -> None:
    comity("put", "a/1", "1", "--author", "planner", "--message", "first\tone")
    comity("put", "b", "2")
    comity("delete", "a/1", "--author", "worker")
    lines = [line.split("\t") for line in comity("log").text.splitlines()]
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


def test_a_large_commit_stays_on_its_line(comity: Comity) -> None:
    puts = ", ".join(f'{{"put": {{"key": "k{number}", "value": 1}}}}' for number in range(8))
    comity("transact", stdin=f'{{"then": [{puts}]}}'.encode())
    assert comity("log").text.split("\t")[3] == "put k0 v1, put k1 v1, put k2 v1, put k3 v1, put k4 v1, 3 more"


def test_the_status_of_a_namespace(comity: Comity) -> None:
    assert comity("status", "--json", code=4).error["reason"] == "NAMESPACE_NOT_FOUND"
    comity("put", "key", "value")
    comity("put", "key", "value")
    found = comity("status", "--json").object
    assert (found["name"], found["revision"], found["key_count"]) == (comity.namespace, 2, 1)
    assert found.keys() >= {"floor", "size_bytes", "commit_count", "history_size_bytes", "epoch", "parent"}
    assert found["create_time"].endswith("Z")
    lines = comity("status").text.splitlines()
    assert f"name: {comity.namespace}" in lines
    assert "revision: 2" in lines


def test_compaction(comity: Comity) -> None:
    for value in "123":
        comity("put", "key", value)
    assert comity("compact", "--revision", "2").text == "floor 2\n"
    assert comity("get", "key", "--revision", "2").text == "2\n"
    assert comity("compact", "--json").object == {"floor": 3}
    error = comity("get", "key", "--revision", "2", "--json", code=1).error
    assert (error["reason"], error["metadata"]["floor"]) == ("COMPACTED", "3")
    comity("compact", "--revision", "9", code=1)
    comity("compact", "--namespace", comity.namespace + "-none", code=4)


def test_the_namespaces(comity: Comity) -> None:
    names = [f"{comity.namespace}-{letter}" for letter in "ab"]
    for name in names:
        comity("put", "key", "1", "--namespace", name)
    rows = [line.split("\t") for line in comity("namespaces", comity.namespace).text.splitlines()]
    assert [row[:3] for row in rows] == [[name, "1", "1"] for name in names]
    listed = comity("namespaces", comity.namespace, "--json").objects
    assert [found["name"] for found in listed] == names
    assert names[0] in comity("namespaces").text
    assert comity("namespaces", comity.namespace + "-none").text == ""


def test_a_namespace_is_deleted_when_somebody_is_sure(comity: Comity) -> None:
    comity("put", "key", "1")
    assert "--yes" in comity("namespaces", "--delete", comity.namespace, code=2).errors
    comity("namespaces", "x", "--delete", comity.namespace, "--yes", code=2)
    assert "Aborted" not in comity.on_terminal("namespaces", "--delete", comity.namespace, typed=b"n\n")
    comity("status")
    assert f"deleted {comity.namespace}" in comity.on_terminal("namespaces", "--delete", comity.namespace, typed=b"y\n")
    comity("status", code=4)
    comity("put", "key", "1")
    assert comity("namespaces", "--delete", comity.namespace, "--yes", "--json").object == {"deleted": comity.namespace}
    comity("namespaces", "--delete", comity.namespace, "--yes", code=4)
