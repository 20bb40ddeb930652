"""`comity watch`: each change at once, until nobody wants more."""

from tests import servers
from tests.cli.processes import DEAD, Comity


def test_changes_as_they_happen(comity: Comity) -> None:
    with comity.watch("--prefix", "a/", "--from", "1") as watching:
        comity("put", "a/1", '{"step": 1}')
        assert watching.line() == '1\tput\ta/1\t{"step":1}'
        comity("put", "b", "1")
        comity("put", "a/1", "te\nxt")
        assert watching.line() == "3\tput\ta/1\tte\\nxt"
        comity("delete", "a/1")
        assert watching.line() == "4\tdelete\ta/1\t"
        done = watching.interrupt()
    assert (done.code, done.data, done.errors) == (0, b"", "")


def test_one_object_a_line(comity: Comity) -> None:
    with comity.watch("key", "--from", "1", "--json", "--previous") as watching:
        comity("put", "key", "1", "--author", "planner", "--message", "why")
        comity("put", "key-2", "1")
        comity("delete", "key")
        put, deleted = watching.object(), watching.object()
        done = watching.interrupt()
    assert done.code == 0
    assert put["commit_time"].endswith("Z")
    assert put["entry"]["value"] == 1
    assert "previous" not in put
    expected = {
        "type": "EVENT_TYPE_PUT",
        "cause": "EVENT_CAUSE_CLIENT",
        "revision": 1,
        "author": "planner",
        "message": "why",
        "trace_parent": "",
    }
    assert {name: put[name] for name in expected} == expected
    assert deleted["type"] == "EVENT_TYPE_DELETE"
    assert deleted["entry"].keys() == {"key", "mod_revision", "update_time"}
    assert (deleted["entry"]["key"], deleted["entry"]["mod_revision"]) == ("key", 3)
    assert deleted["previous"]["value"] == 1


def test_only_some_types_and_previous_values(comity: Comity) -> None:
    comity("put", "key", "1")
    comity("put", "key", "2")
    comity("delete", "key")
    with comity.watch("key", "--from", "1", "--type", "delete", "--previous") as watching:
        assert watching.line() == "3\tdelete\tkey\t\t2"
    with comity.watch("key", "--from", "2", "--type", "put", "--previous") as watching:
        assert watching.line() == "2\tput\tkey\t2\t1"


def test_a_history_that_is_gone_is_a_resync(comity: Comity) -> None:
    comity("put", "a", "1")
    comity("put", "b", "2")
    comity("compact")
    with comity.watch("--prefix", "", "--from", "1") as watching:
        assert [watching.line() for _ in range(3)] == ["2\tresync\t2 entries", "2\tentry\ta\t1", "2\tentry\tb\t2"]
        comity("put", "c", "3")
        assert watching.line() == "3\tput\tc\t3"
    with comity.watch("b", "--from", "1") as watching:
        assert watching.line() == "3\tresync\t1 entry"
    with comity.watch("a", "--from", "1", "--json") as watching:
        resync = watching.object()
    assert (resync["resync"], resync["revision"]) == (True, 2 + 1)
    assert [entry["value"] for entry in resync["entries"]] == [1]
    epoch = comity("status", "--json").object["epoch"]
    assert resync["epoch"] == epoch
    with comity.watch("c", "--from", "3", "--epoch", epoch) as watching:
        assert watching.line() == "3\tput\tc\t3"
    with comity.watch("c", "--from", "3", "--epoch", "another") as watching:
        assert watching.line() == "3\tresync\t1 entry"
    assert "--epoch goes with --from" in comity("watch", "c", "--epoch", epoch, code=2).errors


def test_a_server_that_comes_back(namespace: str) -> None:
    with servers.start("--store", "memory:") as server:
        comity = Comity(server.address, namespace)
        with comity.watch("--prefix", "", "--from", "1") as watching:
            comity("put", "key", "1")
            assert watching.line() == "1\tput\tkey\t1"
            server.kill()
            server.restart()
            assert watching.line() == "0\tresync\t0 entries"  # this store forgets with its server
            comity("put", "key", "2")
            assert watching.line() == "1\tput\tkey\t2"
            done = watching.interrupt()
    assert done.code == 0
    assert done.errors == "comity: lost the connection, trying again\ncomity: connected again\n"


def test_it_ends_when_its_reader_does(comity: Comity) -> None:
    comity("put", "key", "1")
    # Nothing more happens, so that the watch has no write to fail.
    done = comity.shell("comity watch key --from 1 | head -1; echo ${PIPESTATUS[*]}")
    assert (done.text, done.errors) == ("1\tput\tkey\t1\n0 0\n", "")


def test_no_server_at_the_start(comity: Comity) -> None:
    assert comity("watch", "key", "--address", DEAD, "--timeout", "0.5", code=5).errors
    error = comity("watch", "key", "--address", DEAD, "--timeout", "0.5", "--json", code=5).error
    assert error["code"] == "UNAVAILABLE"


def test_what_cannot_be_watched(comity: Comity) -> None:
    comity("watch", code=2)
    comity("watch", "key", "--prefix", "k", code=2)
    comity("watch", "key", "--type", "lease", code=2)
    comity("watch", "key", "--from", "x", code=2)
    comity("watch", "k" * 2000, code=2)
