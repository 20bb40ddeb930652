"""`comity bench`: load on a server from its own command line."""

import signal
import subprocess

import pytest

from tests import servers
from tests.cli.processes import DEAD, Comity
from tests.forked import command

SHORT = ("--seconds", "0.2", "--tasks", "4", "--keys", "50")


def test_it_says_how_many_calls_there_were_and_how_long_they_took(comity: Comity) -> None:
    mix = "get=4,put=3,transact=1,update=1,list=1,watch=1"
    found = comity("bench", "--seconds", "0.4", "--tasks", "8", "--keys", "50", "--mix", mix, "--json").object

    assert found["errors"] == 0
    assert found["failed"] == {}
    assert found["operations"] == sum(kind["operations"] for kind in found["kinds"].values())
    assert found["operations_per_second"] == pytest.approx(found["operations"] / found["seconds"])
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert list(found["kinds"]) == ["get", "put", "transact", "update", "list", "watch"]
    for kind in found["kinds"].values():
        assert kind["operations"] == sum(calls for _, calls in kind["histogram"]) > 0
        places = list(kind["percentiles_ms"].values())
        assert places == sorted(places)
        assert kind["histogram"] == sorted(kind["histogram"])
    assert found["kinds"]["get"]["operations"] > found["kinds"]["list"]["operations"]


@pytest.mark.parametrize(
    ("workload", "kinds"),
    [
        ("put", ["put"]),
        ("get", ["get"]),
        ("mixed", ["get", "put", "transact"]),
        ("contend", ["update"]),
        ("watch", ["watch"]),
    ],
)
def test_each_workload(comity: Comity, workload: str, kinds: list[str]) -> None:
    found = comity("bench", *SHORT, "--workload", workload, "--json").object
    assert list(found["kinds"]) == kinds
    assert found["operations"] > 0
    assert found["errors"] == 0


def test_processes_share_the_tasks_and_are_counted_together(comity: Comity) -> None:
    found = comity(
        "bench", "--seconds", "0.3", "--tasks", "5", "--processes", "2", "--workload", "contend", "--keep", "--json"
    ).object
    (name,) = [line.split("\t")[0] for line in comity("namespaces", comity.namespace[:40]).text.splitlines()]
    counted = comity("get", "number-key-00000000", "--namespace", name).text
    assert int(counted) == found["operations"] > 0
    assert found["errors"] == 0


def test_it_shows_a_histogram(comity: Comity) -> None:
    text = comity("bench", *SHORT, "--workload", "put").text
    assert text.splitlines()[0].split("\t")[:3] == ["what", "calls", "a second"]
    assert "put: " in text
    assert "up to " in text
    assert "#" in text


def test_it_shows_its_progress_on_a_terminal(comity: Comity) -> None:
    assert "calls a second" in comity.on_terminal("bench", "--seconds", "0.5", "--workload", "get")


def test_it_works_in_a_namespace_of_its_own_that_is_deleted_in_the_end(comity: Comity) -> None:
    comity("bench", *SHORT)
    assert comity("namespaces", comity.namespace).text == ""
    comity("bench", *SHORT, "--keep")
    assert f"{comity.namespace[:40]}-bench-" in comity("namespaces", comity.namespace[:40]).text


def test_ctrl_c_ends_it_and_leaves_nothing_behind(comity: Comity) -> None:
    arguments = [*command(), "bench", "--seconds", "60", "--workload", "put", "--address", comity.address]
    process = subprocess.Popen(
        [*arguments, "--namespace", comity.namespace],
        env=servers.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not comity("namespaces", comity.namespace).text:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    assert comity("namespaces", comity.namespace).text == ""


def test_what_refuses_every_call_is_told_with_how_often(comity: Comity) -> None:
    large = ("--value-bytes", "1048576", "--mix", "transact=1", "--json")
    found = comity("bench", "--seconds", "0.1", "--tasks", "1", *large, code=1).object
    assert found["operations"] == 0
    assert found["p50_ms"] is None
    ((what, count),) = found["failed"].items()
    assert "InvalidArgument" in what or "ResourceExhausted" in what
    assert found["errors"] == count > 0


def test_a_server_that_is_not_there(comity: Comity) -> None:
    comity("bench", "--address", DEAD, "--timeout", "0.5", code=5)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mix", "nothing=1"),
        ("--mix", "put"),
        ("--mix", "put=0"),
        ("--mix", ""),
        ("--workload", "nothing"),
        ("--tasks", "0"),
        ("--tasks", "1000000"),
        ("--tasks", "1", "--processes", "2"),
        ("--processes", "0"),
        ("--seconds", "0"),
        ("--seconds", "x"),
        ("--seconds", "nan"),
        ("--keys", "-1"),
        ("--keys", "10000000"),
        ("--value-bytes", "-1"),
    ],
)
def test_what_cannot_be_done_is_refused(comity: Comity, arguments: tuple[str, ...]) -> None:
    comity("bench", *arguments, code=2)
