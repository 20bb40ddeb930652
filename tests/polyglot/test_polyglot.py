"""A program in Node.js, with nothing but protos/, sees what a program in Python writes, and the other way round."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import comity
from comity.recipes import Lock
from comity.v1 import state_pb2, state_pb2_grpc, types_pb2
from tests.polyglot.install import HERE, find_node, install
from tests.redis_servers import wait_until
from tests.servers import Server, start
from tests.waiting import until

PROTOS = HERE.parent.parent / "protos"
ROUNDS = 20  # of lock.mjs, too
WRITTEN_HERE = b"\x00\xff from Python"

Line = dict[str, Any]


@pytest.fixture(scope="module")
def node() -> str:
    """Node.js, with the packages that the program imports."""
    try:
        found = find_node().node
    except FileNotFoundError as error:
        pytest.skip(str(error))
    if not (HERE / "node_modules" / "@grpc" / "grpc-js").is_dir():
        install()
    return found


def lines(node: str, program_name: str, server: Server, namespace: str, log: Path) -> Iterator[Line]:
    """What a program says, while it runs."""
    command = [node, str(HERE / program_name), server.address, str(PROTOS), namespace]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8") as program,
    ):
        assert program.stdout is not None
        try:
            yield from map(json.loads, program.stdout)
            program.wait(20)
        finally:
            program.kill()  # nothing, if it has ended
    assert program.returncode == 0, log.read_text()


def data(value: Line) -> bytes:
    """Bytes, as Node.js prints a Buffer."""
    assert value["type"] == "Buffer"
    return bytes(value["data"])


@pytest.fixture
def said(node: str, server: Server, namespace: str, tmp_path: Path) -> list[Line]:
    """All that the program said, after a writer in Python has done its part."""
    everything = []
    with grpc.insecure_channel(server.address) as channel:
        state = state_pb2_grpc.StateServiceStub(channel)
        for line in lines(node, "program.mjs", server, namespace, tmp_path / "node.log"):
            everything.append(line)
            if line["step"] == "your turn":
                options = types_pb2.WriteOptions(author="python")
                put = state_pb2.PutRequest(namespace=namespace, key="poly/python", value=WRITTEN_HERE, options=options)
                assert state.Put(put, timeout=20).revision == 4
    return everything


def test_program_in_another_language_needs_only_the_protos(said: list[Line], namespace: str) -> None:
    steps = {line.pop("step"): line for line in said if line["step"] != "event"}
    events = [line for line in said if line.get("step") == "event"]
    check_reads_and_writes(steps)
    check_errors(steps)
    check_transactions(steps)
    check_watch(steps["created"], events)
    assert steps["list"]["keys"] == ["poly/greeting", "poly/python"]
    assert steps["history"] == {"authors": ["node", "node", "", "python"], "floor": "0"}
    described = steps["namespace"]["namespace"]
    assert (described["name"], described["revision"], described["key_count"]) == (namespace, "4", "2")
    assert described["epoch"] == steps["created"]["epoch"]


def test_a_probe_in_another_language_sees_how_a_server_ends(node: str) -> None:
    def probe(address: str, service: str) -> tuple[int, Line]:
        command = [node, str(HERE / "health.mjs"), address, service]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return ended.returncode, json.loads(ended.stdout)

    with start("--drain-delay", "60", "--health-listen", "127.0.0.1:0") as own:
        (apart,) = own.health_addresses
        assert probe(apart, "liveness") == probe(own.address, "readiness") == (0, {"status": "SERVING"})
        assert probe(apart, "none") == (3, {"error": "NOT_FOUND"})
        own.process.terminate()
        wait_until("a drain", lambda: '"draining soon' in own.log())
        assert probe(apart, "readiness") == (4, {"status": "NOT_SERVING"})
        assert probe(apart, "liveness") == (0, {"status": "SERVING"})
        own.kill()
        assert probe(apart, "liveness") == (2, {"error": "no connection"})


def check_reads_and_writes(steps: dict[str, Line]) -> None:
    assert steps["absent"].get("entry") is None
    assert (steps["put"]["revision"], steps["put"]["version"]) == ("1", "1")
    assert steps["repeat"] == steps["put"]
    entry = steps["get"]["entry"]
    assert data(entry["value"]).decode() == "Grüße, 世界"
    assert (entry["key"], entry["content_type"], entry["version"]) == ("poly/greeting", "text/plain", "1")
    assert (entry["create_revision"], entry["mod_revision"]) == ("1", "1")
    assert (steps["delete"]["revision"], steps["delete"]["deleted"]) == ("3", "1")
    assert data(steps["delete"]["previous"][0]["value"]) == b"9007199254740991"


def check_errors(steps: dict[str, Line]) -> None:
    conflict = steps["conflict"]
    assert conflict["code"] == conflict["status_code"] == "ABORTED"
    assert (conflict["ErrorInfo"]["reason"], conflict["ErrorInfo"]["domain"]) == ("CONFLICT", "comity")
    metadata = conflict["ErrorInfo"]["metadata"]
    expected = {"key": "poly/greeting", "version": "1", "mod_revision": "1", "revision": "1"}
    assert expected.items() <= metadata.items()
    assert conflict["message"]

    invalid = steps["invalid"]
    assert (invalid["code"], invalid["ErrorInfo"]["reason"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert [violation["field"] for violation in invalid["BadRequest"]["field_violations"]] == ["key"]

    future = steps["future"]
    assert (future["code"], future["ErrorInfo"]["reason"]) == ("OUT_OF_RANGE", "REVISION_IN_FUTURE")
    assert "9007199254740993" in future["message"]


def check_transactions(steps: dict[str, Line]) -> None:
    transact = steps["transact"]
    assert (transact["committed"], transact["revision"]) == (True, "2")
    increment, put, get, listed = transact["results"]
    assert (increment["result"], increment["increment"]["value"]) == ("increment", "9007199254740991")
    assert data(put["put"]["previous"]["value"]).decode() == "Grüße, 世界"
    assert data(get["get"]["entry"]["value"]) == b"9007199254740991"
    assert get["get"]["entry"]["content_type"] == "application/json"
    assert [entry["key"] for entry in listed["list"]["entries"]] == ["poly/count", "poly/greeting"]

    lost = steps["lost"]
    assert (lost.get("committed", False), lost["revision"]) == (False, "2")
    stale, absent = lost["failed"]
    assert (stale.get("index", 0), stale["current"]["version"]) == (0, "2")
    assert data(stale["current"]["value"]) == b"hello"
    assert (absent["index"], absent.get("current")) == (1, None)


def check_watch(created: Line, events: list[Line]) -> None:
    assert (created["revision"], created["commits"]) == ("1", 0)
    assert created["epoch"]
    assert [(event["revision"], event["author"], event["type"], event["entry"]["key"]) for event in events] == [
        ("2", "node", "EVENT_TYPE_PUT", "poly/count"),
        ("2", "node", "EVENT_TYPE_PUT", "poly/greeting"),
        ("3", "", "EVENT_TYPE_DELETE", "poly/count"),
        ("4", "python", "EVENT_TYPE_PUT", "poly/python"),
    ]
    count, greeting, deleted, written = events
    assert count.get("previous") is None
    assert data(greeting["previous"]["value"]).decode() == "Grüße, 世界"
    assert data(greeting["entry"]["value"]) == b"hello"
    assert data(deleted["previous"]["value"]) == b"9007199254740991"
    assert deleted["entry"].get("version", "0") == "0"
    assert data(written["entry"]["value"]) == WRITTEN_HERE
    assert all(event["cause"] == "EVENT_CAUSE_CLIENT" for event in events)


def test_pipelines_in_another_language(node: str, tmp_path: Path) -> None:
    """Its server is killed once, and stopped once, while it writes."""
    said: dict[str, Line] = {}
    with start("--store", f"sqlite:{tmp_path / 'state.db'}") as server:
        ends = iter((server.kill, server.stop))
        for line in lines(node, "pipeline.mjs", server, "n", tmp_path / "node.log"):
            step = line.pop("step")
            if step == "restart":
                next(ends)()
                server.restart()
            said[step] = line
    check_mixed(said["mixed"]["results"])
    check_sums(said["sums"])
    assert said["end"] == {"status": "OK"}


def check_mixed(results: list[Line]) -> None:
    assert [int(result["id"]) for result in results] == list(range(1, 15))
    created, read, again, over, lost, most, too_much, no_number, nameless, page, done, gone, absent, listed = results
    assert (created["revision"], created["version"], "code" in created) == ("1", "1", False)
    assert (data(read["entry"]["value"]).decode(), read["entry"]["content_type"]) == ("Grüße", "text/plain")
    for conflict, version in ((again, "1"), (lost, "2")):
        assert (conflict["code"], conflict["error"]["reason"], conflict["version"]) == (10, "CONFLICT", version)
        assert conflict["error"]["metadata"]["key"] == "poly/a"
    assert (over["version"], data(over["entry"]["value"]).decode()) == ("2", "Grüße")
    assert (most["value"], most["version"]) == ("9007199254740991", "1")
    assert [result["error"]["reason"] for result in (too_much, no_number)] == ["NOT_A_NUMBER"] * 2
    assert (nameless["code"], nameless["error"]["violations"]) == (3, {"key": "is required"})
    assert [entry["key"] for entry in page["list"]["entries"]] == ["poly/a"]
    assert page["list"]["next_page_token"]
    assert (done["transact"]["committed"], done["revision"]) == (True, "4")
    assert [entry["key"] for entry in done["transact"]["results"][1]["list"]["entries"]] == [
        "poly/a",
        "poly/b",
        "poly/n",
    ]
    assert (gone["version"], data(gone["entry"]["value"])) == ("1", b"9007199254740991")
    assert absent.get("entry") is None
    assert [entry["key"] for entry in listed["list"]["entries"]] == ["poly/a", "poly/b"]
    assert listed["revision"] == "5"


def check_sums(said: Line) -> None:
    """Each increment was done once, and each total was answered once."""
    assert said["repeated"] > 0
    assert len(said["breaks"]) >= 2
    assert {"code": "UNAVAILABLE", "details": "the server is shutting down"} in said["breaks"]
    for each in said["sums"]:
        assert each["done"] == each["distinct"] == each["most"] == int(each["value"]) > 0, each
    assert int(said["revision"]) == 5 + sum(each["done"] for each in said["sums"]) + 1


async def test_a_lock_in_another_language_is_the_lock_of_the_recipes(
    node: str, server: Server, namespace: str, tmp_path: Path
) -> None:
    """Both count up, by a get and a put; each is seen to wait for the other one. Then its lease is ended."""
    said = lines(node, "lock.mjs", server, namespace, tmp_path / "node.log")
    async with comity.connect(server.address, namespace=namespace, author="python") as state:

        async def two_in_line() -> bool:
            return len(await state.list("locks/shared/").all()) == 2

        assert await following(said) == {"step": "held"}
        fences = []
        for turn in range(ROUNDS):
            async with Lock(state, "shared") as lock:
                fences.append(lock.fence)
                if not turn:
                    await until(two_in_line)
                count = await state.get("count")
                assert count is not None
                await state.put("count", count.value + 1, guard=lock)
        counted = await following(said)
        assert counted["step"] == "counted"
        others = [int(fence) for fence in counted["fences"]]
        assert len(others) == ROUNDS
        assert (fences, others) == (sorted(fences), sorted(others))
        assert not set(fences) & set(others)

        held = await following(said)
        assert await Lock(state, "shared").owner() == "node"
        assert await state.revoke_lease(int(held["fence"])) == 1
        assert await following(said) == {"step": "lost", "code": "FAILED_PRECONDITION"}
        assert await following(said) == {}
        result = await state.get("count")
        assert result is not None
        assert result.value == 2 * ROUNDS


async def following(said: Iterator[Line]) -> Line:
    """What the program says next; nothing, once it has ended well."""
    return await asyncio.to_thread(next, said, {})
