"""`comity status`, `namespaces`, `compact`."""

from tests.cli.processes import Comity


def test_the_status_of_a_namespace(comity: Comity) -> None:
    error = comity("status", "--json", code=4).error
    assert error["reason"] == "NAMESPACE_NOT_FOUND"
    assert len(error["request_id"]) == 32  # by which the server's log has the call
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


def test_a_compaction_that_keeps_all(comity: Comity) -> None:
    for value in "12":
        comity("put", "key", value)
    assert comity("compact", "--revision", "0").text == "floor 0\n"
    comity("compact", "--revision", "1")
    assert comity("compact", "--revision", "0").text == "floor 1\n"
    assert comity("get", "key", "--revision", "1").text == "1\n"


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
