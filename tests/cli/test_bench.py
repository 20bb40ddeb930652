"""`comity bench`: load on a server from its own command line."""

import pytest

from tests.cli.processes import Comity


def test_it_says_how_many_calls_there_were_and_how_long_they_took(comity: Comity) -> None:
    mix = "get=4,put=3,transact=1,update=1,list=1"
    found = comity("bench", "--seconds", "0.3", "--tasks", "8", "--keys", "50", "--mix", mix, "--json").object

    assert found["tasks"] == 8
    assert found["errors"] == {}
    assert list(found["calls"]) == ["get", "put", "transact", "update", "list"]
    for times in found["calls"].values():
        assert times["count"] == sum(calls for _, calls in times["histogram"]) > 0
        assert times["rate"] == pytest.approx(times["count"] / found["seconds"])
        places = list(times["percentiles"].values())
        assert places == sorted(places)
        assert times["histogram"] == sorted(times["histogram"])
    assert found["calls"]["get"]["count"] > found["calls"]["list"]["count"]


def test_it_shows_a_histogram(comity: Comity) -> None:
    text = comity("bench", "--seconds", "0.2", "--tasks", "2", "--mix", "put=1").text
    assert "put: " in text
    assert "up to " in text
    assert "#" in text


def test_it_shows_its_progress_on_a_terminal(comity: Comity) -> None:
    assert "calls a second" in comity.on_terminal("bench", "--seconds", "0.5", "--mix", "get=1")


def test_it_works_in_a_namespace_of_its_own_that_is_deleted_in_the_end(comity: Comity) -> None:
    comity("bench", "--seconds", "0.1", "--tasks", "1")
    assert comity("namespaces", comity.namespace).text == ""
    comity("bench", "--seconds", "0.1", "--tasks", "1", "--keep")
    assert f"{comity.namespace[:40]}-bench-" in comity("namespaces", comity.namespace[:40]).text


def test_contention_for_one_key_loses_nothing(comity: Comity) -> None:
    arguments = ("--seconds", "0.3", "--tasks", "8", "--keys", "1", "--mix", "update=1", "--keep", "--json")
    found = comity("bench", *arguments).object
    (name,) = [line.split("\t")[0] for line in comity("namespaces", comity.namespace[:40]).text.splitlines()]
    counted = comity("get", "number-key-00000000", "--namespace", name).text
    assert int(counted) == found["calls"]["update"]["count"]


def test_what_refuses_every_call_is_told_with_how_often(comity: Comity) -> None:
    found = comity(
        "bench", "--seconds", "0.1", "--tasks", "1", "--value-bytes", "1048576", "--mix", "transact=1", "--json", code=1
    ).object
    assert found["calls"]["transact"]["count"] == 0
    ((what, count),) = found["errors"].items()
    assert "InvalidArgument" in what or "ResourceExhausted" in what
    assert count > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--mix", "nothing=1"),
        ("--mix", "put"),
        ("--mix", "put=0"),
        ("--mix", ""),
        ("--tasks", "0"),
        ("--tasks", "1000000"),
        ("--seconds", "0"),
        ("--seconds", "x"),
        ("--keys", "-1"),
        ("--value-bytes", "-1"),
    ],
)
def test_what_cannot_be_done_is_refused(comity: Comity, arguments: tuple[str, ...]) -> None:
    comity("bench", *arguments, code=2)
