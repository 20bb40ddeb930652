"""`comity top`."""

import asyncio
import datetime
import itertools
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from zoneinfo import ZoneInfo

import pytest

import comity as client
from comity.cli.readings import Reading
from comity.cli.render import Output
from comity.cli.top import HEADERS, _print, _sections, together
from comity.server_status import Histogram, from_message
from comity.v1 import server_pb2, state_pb2
from tests import servers
from tests.cli.processes import DEAD, Comity

DOCS = (Path(__file__).parents[2] / "docs/observability.md").read_text()
ONCE = ("top", "--once", "--interval", "0.3")


@contextmanager
def busy(comity: Comity) -> Iterator[None]:
    """Have keys be written, one of them by force and one in vain, until the end of the block."""
    ends, began = Event(), Event()

    def work() -> None:
        with client.sync.connect(comity.address, namespace=comity.namespace) as state:
            while not ends.is_set():
                state.put("k", 1)
                try:
                    state.put("k", 2, if_version=10**6)
                except client.Conflict:
                    began.set()

    thread = Thread(target=work)
    thread.start()
    assert began.wait(20)
    try:
        yield
    finally:
        ends.set()
        thread.join()


@pytest.fixture
def comity() -> Iterator[Comity]:
    """Against a server that nobody else uses: it shows as many namespaces as there is room for."""
    with servers.start() as server:
        yield Comity(server.address, "default")


def test_as_json(comity: Comity) -> None:
    with busy(comity):
        shown = comity(*ONCE, "--json").object
    assert (shown["address"], shown["state"], shown["store"]) == (comity.address, "SERVING", "memory")
    assert shown["version"] == client.__version__
    assert 0.3 <= shown["seconds"] < 20
    for rate in ("operations", "commits", "conflicts", "errors"):
        assert shown[f"{rate}_per_second"] > 0
    assert 0 < shown["message_p50_ms"] <= shown["message_p99_ms"]
    assert shown["resident_bytes"] > 10_000_000
    (method,) = [one for one in shown["methods"] if one["method"] == "comity.v1.StateService/Pipeline"]
    assert method["open"] >= 1
    (namespace,) = [one for one in shown["namespaces"] if one["namespace"] == comity.namespace]
    assert namespace["writes_per_second"] > namespace["revisions_per_second"] > 0


def test_in_a_pipe_each_line_says_what_it_is_about(comity: Comity) -> None:
    comity("put", "k", "1")
    rows = [line.split("\t") for line in comity(*ONCE, "--address", f"{comity.address},{DEAD}").text.splitlines()]
    sections = ["server", "trouble", "sizes", "method", "namespace"]
    assert [row[0] for row in rows if row[0].isupper()] == [name.upper() for name in sections]
    columns = {}
    for row in rows:
        if row[0].isupper():
            columns[row[0].lower()] = row
        assert len(row) == len(columns[row[0].lower()]), "a line has the columns that are named above it"
    assert set(columns) == {row[0] for row in rows if not row[0].isupper()}
    assert columns["server"][:4] == ["SERVER", "ADDRESS", "STATE", "OPS/S"]
    assert [row[1:3] for row in rows if row[0] == "server"] == [[comity.address, "SERVING"], [DEAD, "UNAVAILABLE"]]
    (trouble,) = [row[1:] for row in rows if row[0] == "trouble"]
    assert trouble == [DEAD, f"cannot reach {DEAD}: connection refused"]


def test_the_page_has_all_columns() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (`.*) \|$", DOCS, re.MULTILINE)
    said = {name: re.findall(r"`([^`]+)`", columns) for name, columns in rows}
    for (name, _), header in zip(_sections([]), HEADERS, strict=True):
        assert said[name] == list(header)


def test_in_a_pipe_columns_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    output, named = Output(as_json=False), set[str]()
    status = from_message(server_pb2.ServerStatus())
    for readings in ([Reading("a", now=status)], [Reading("a", error="gone")], [Reading("a", now=status)]):
        _print(output, readings, named)
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == [
        *("SERVER", "server", "SIZES", "sizes"),
        *("server", "TROUBLE", "trouble"),
        *("server", "sizes"),
    ]


def test_operations_are_those_of_pipelines_and_calls_that_are_no_streams() -> None:
    before, now = server_pb2.ServerStatus(), server_pb2.ServerStatus(shed=[server_pb2.ShedCount(limit="l", count=2)])
    now.time.FromSeconds(10)
    now.pipelines.operations.add(kind=state_pb2.PIPELINE_KIND_GET, count=100)
    for method in ("StateService/Put", "CheckpointService/Diff", "LeaseService/GrantLease", "NamespaceService/Fork"):
        now.methods.add(method=f"comity.v1.{method}").codes.add(code="OK", count=5)
    for method in ("StateService/Pipeline", "StateService/Watch", "LeaseService/KeepAlive", "ServerService/GetStatus"):
        now.methods.add(method=f"comity.v1.{method}").codes.add(code="OK", count=1000)
    shown = Reading("a", now=from_message(now), before=from_message(before)).object()
    assert shown["operations_per_second"] == 12
    assert shown["shed"] == {"l": 2}


def test_what_several_servers_say_of_the_same_is_put_together() -> None:
    one = {"namespace": "a", "revision": 5, "revisions_per_second": 2.0, "writes_per_second": 1.5, "lease_count": 1}
    other = {"namespace": "a", "revision": 6, "revisions_per_second": 3.0, "writes_per_second": 2.0, "lease_count": 1}
    alone = {"namespace": "b", "revision": 1, "revisions_per_second": 0.0, "writes_per_second": 0.0, "lease_count": 0}
    assert together("namespace", [[one], [other, alone]]) == [{**other, "writes_per_second": 3.5}, alone]
    slow, fast = {"method": "m", "open": 1, "p50_ms": 9.0}, {"method": "m", "open": 2, "p50_ms": None}
    assert together("method", [[slow], [fast]]) == together("method", [[fast], [slow]]) == [{**slow, "open": 3}]
    assert together("method", [[slow], [dict(slow)]]) == [{**slow, "open": 2}]


def test_on_a_terminal_it_goes_on_until_q_or_an_interrupt(comity: Comity) -> None:
    comity("put", "k", "1")
    for shown in (
        comity.on_terminal("top", "--interval", "0.2", typed=b"xQ"),
        comity.on_terminal("top", "--interval", "0.2", until="namespace"),
    ):
        assert "SERVING" in shown
        assert shown.endswith("\x1b[?25h\x1b[?1049l")  # the cursor is there again, and what was there before
    assert comity.namespace in comity.on_terminal(*ONCE, "--timeout", "5")


def test_a_server_that_comes_back_is_shown_again() -> None:
    with servers.start() as server:
        comity = Comity(server.address, "default")
        with comity.started("top", "--interval", "0.1", "--json") as running:
            assert running.object()["state"] == "SERVING"
            server.kill()
            while (shown := running.object())["state"] == "SERVING":
                pass
            assert shown == {
                "address": server.address,
                "state": "UNAVAILABLE",
                "error": f"cannot reach {server.address}: connection refused",
            }
            server.restart()
            while (shown := running.object())["state"] != "SERVING":
                pass
            assert shown["operations_per_second"] == 0
            assert running.interrupt().code == 0


def test_who_cannot_be_shown_anything(comity: Comity) -> None:
    refused = comity("top", "--once", "--interval", "0.1", "--address", DEAD, "--json", code=5).error
    assert (refused["code"], refused["reason"]) == ("UNAVAILABLE", "UNREACHABLE")
    for wrong in ("0", "-1", "nan", "1e9", "x"):
        comity("top", "--interval", wrong, code=2)


def test_quantiles_are_bounds() -> None:
    nothing = Histogram((1.0, 2.0), (0, 0, 0), 0.0)
    some = Histogram((1.0, 2.0), (98, 1, 1), 200.0)
    assert nothing.quantile(0.5) is None
    assert [some.quantile(part) for part in (0.0, 0.5, 0.98, 0.99, 1.0)] == [1.0, 1.0, 1.0, 2.0, 2.0]
    assert some.since(nothing) == some
    assert some.since(some) == nothing
    assert some.since(Histogram((5.0,), (1, 1), 9.0)) == some


NUMBERS = [math.nan, math.inf, -math.inf, 1e308, -1e308, 0.0]
TIMES = [-(2**63), -62135596800, 0, 253402300799, 2**63 - 1]


def hostile(number: float, time: int, counts: list[int]) -> server_pb2.ServerStatus:
    """What no server says."""
    made = server_pb2.ServerStatus()
    for at in (made.start_time, made.time, made.namespaces.add().namespace.create_time):
        at.seconds, at.nanos = time, -(2**31)
    made.process.cpu_seconds = made.compaction.seconds = number
    for histogram in (
        *(made.pipelines.message_durations, made.commits.group_sizes, made.commits.group_durations),
        *(made.watches.lags, made.process.loop_delays, made.methods.add(method="m").durations),
    ):
        histogram.bounds.extend([1.0, number])
        histogram.counts.extend(counts)
        histogram.sum = number
    made.methods[0].open = -(2**63)
    made.commits.committed = 2**62
    return made


def test_what_a_server_says_of_itself_may_be_anything() -> None:
    statuses = [
        from_message(hostile(number, time, counts))
        for number, time in itertools.product(NUMBERS, TIMES)
        for counts in ([], [1, 2], [1, 2, 3], [1] * 9)
    ]
    for before, now in itertools.pairwise(statuses):
        shown = Reading("a", now=now, before=before).object()
        assert json.dumps(shown, allow_nan=False)
        assert now.start_time.astimezone(ZoneInfo("Asia/Tokyo")) > now.start_time.min.replace(tzinfo=datetime.UTC)


def test_a_client_asks_for_the_same(comity: Comity) -> None:
    async def ask() -> client.ServerStatus:
        async with client.connect(comity.address) as state:
            return await state.server_status()

    status = asyncio.run(ask())
    with client.sync.connect(comity.address) as state:
        later = state.server_status()
    assert later.instance == status.instance
    assert later.uptime > status.uptime > 0
    asked = "comity.v1.ServerService/GetStatus"
    assert later.methods[asked].ended > status.methods[asked].ended
    assert later.methods[asked].codes["OK"] == later.methods[asked].ended
    assert (status.store, status.writable, status.trouble, status.draining) == ("memory", True, "", False)
