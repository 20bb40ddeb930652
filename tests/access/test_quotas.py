"""Tables `[[limits]]` of the policy file: what is wrong with one, what it says, and that it holds over a socket."""

import json
from collections.abc import Iterable
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.v1 import state_pb2 as s
from comity_server.access import files, patterns
from comity_server.access import shadows as shadowing
from comity_server.access.buckets import Rate
from comity_server.access.limits import NamespaceLimits, PrincipalLimits, Rates, Rules, Table, figures
from comity_server.access.patterns import Names
from comity_server.access.policy import PolicyError, parse
from comity_server.access.setup import rules as rules_of
from comity_server.access.shadows import shadows
from comity_server.limits import UNBOUNDED, Limits, Retention
from comity_server.settings import SettingsError
from comity_server.sources import load
from tests.access.believing import refused
from tests.waiting import until
from tests.wire.calls import TIMEOUT
from tests.wire.inprocess import run


def table(**fields: object) -> str:
    return "[[limits]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("limits = 1", "limits is not a list"),
        ("limits = ['a']", "limit 1 is not a table: write [[rules]] or [[limits]] before each"),
        (table(), "limit 1, principals: a table has either principals or namespaces"),
        (
            table(principals=["a"], namespaces=["a"], rate=1),
            "limit 1, principals: a table has either principals or namespaces",
        ),
        (table(principals=["a"]), "limit 1, principals: the table has no limit for them"),
        (table(namespaces=["a"]), "limit 1, namespaces: the table has no limit for them"),
        (table(principals=["a"], keys=1), "limit 1, keys: is a limit of namespaces"),
        (table(namespaces=["a"], max_principal_calls=1), "limit 1, max_principal_calls: is a limit of principals"),
        (table(principals=["a"], burst=1), "limit 1, burst: needs a rate above 0"),
        (table(principals=["a"], rate=0, burst=1), "limit 1, burst: needs a rate above 0"),
        (table(principals=["a"], burst_bytes=1), "limit 1, burst_bytes: needs a rate_bytes above 0"),
        (table(principals=[], rate=1), "limit 1, principals must not be empty"),
        (table(principals=[""], rate=1), "limit 1, principals[0] must not be empty"),
        (table(principals=["a" * 1025], rate=1), "limit 1, principals[0] is longer than 1024"),
        (table(principals=["a"] * 1001, rate=1), "limit 1, principals is longer than 1000"),
        (table(principals="a", rate=1), "limit 1, principals is not a list"),
        (table(principals=[1], rate=1), "limit 1, principals[0] is not text"),
        (table(principals=["a"], rate=-1), "limit 1, rate should be greater than or equal to 0"),
        (table(principals=["a"], rate=10**13), "limit 1, rate should be less than or equal to 1000000000000"),
        (table(principals=["a"], rate="1"), "limit 1, rate should be a valid number"),
        ("[[limits]]\nprincipals = ['a']\nrate = nan", "limit 1, rate should be a finite number"),
        ("[[limits]]\nprincipals = ['a']\nrate = inf", "limit 1, rate should be a finite number"),
        (table(principals=["a"], max_principal_calls=1.5), "limit 1, max_principal_calls should be a valid integer"),
        (table(namespaces=["a-*"], count=0), "limit 1, count should be greater than or equal to 1"),
        (table(principals=["a-*"], count=1), "limit 1, count: is a limit of namespaces"),
        *(
            (
                table(namespaces=["a-*", other], count=1),
                f"limit 1, count: {other!r} is no beginning of names with a '*'",
            )
            for other in ("b", "b?", "b*c", "*b*", "b?*")
        ),
        (table(namespaces=["a"], keys=0), "limit 1, keys should be greater than or equal to 1"),
        (table(namespaces=["a"], keys=True), "limit 1, keys should be a valid integer"),
        (table(principals=["a"], max_calls=1), "limit 1, max_calls is nothing that a policy has"),
        (table(principals=["a"], speed=1), "limit 1, speed is nothing that a policy has"),
        (table(principals=["a"], rate=1) + table(rate=1), "limit 2, principals: a table has either"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as wrong:
        parse(text.encode(), "policy.toml")
    assert str(wrong.value).startswith(f"policy.toml: {problem}")
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            table(principals=["a"], namespaces=["a"], rate=-1),
            ["rate should be greater than or equal to 0", "principals: a table has either principals or namespaces"],
        ),
        (table(principals=[]), ["principals must not be empty", "principals: the table has no limit for them"]),
        (
            table(principals=[1], keys=0, bytes=1, burst="x"),
            [
                "principals[0] is not text",
                "burst should be a valid number",
                "keys should be greater than or equal to 1",
                "keys: is a limit of namespaces",
                "bytes: is a limit of namespaces",
                "burst: needs a rate above 0",
            ],
        ),
    ],
)
def test_all_that_is_wrong_with_a_table_is_said_at_once(text: str, problems: list[str]) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(text.encode(), "p")
    assert [each.removeprefix("p: limit 1, ") for each in caught.value.problems] == problems


@pytest.mark.parametrize(
    ("tables", "found"),
    [
        ([table(principals=["batch-*"], rate=1), table(principals=["batch-1"], rate=2)], [(2, "rate", [1])]),
        ([table(principals=["batch-1"], rate=1), table(principals=["batch-*"], rate=2)], []),
        ([table(principals=["*"], rate=1), table(namespaces=["a"], rate=2)], []),
        ([table(principals=["*"], rate=1), table(principals=["a"], rate_bytes=1)], []),
        (
            [table(principals=["*"], rate=1), table(principals=["a"], rate=2, burst=2, rate_bytes=1)],
            [(2, "rate", [1])],
        ),
        # by several together
        (
            [
                table(namespaces=["a"], keys=1),
                table(namespaces=["x"], keys=1),
                table(namespaces=["b-*"], keys=2),
                table(namespaces=["b-1", "a"], keys=3),
                table(namespaces=["b-1", "c"], keys=3),
            ],
            [(4, "keys", [1, 3])],
        ),
        ([table(principals=["*"], rate=1), table(principals=["anonymous"], rate=2)], []),
        ([table(principals=["anonymous"], rate=1), table(principals=["anonymous"], rate=2)], [(2, "rate", [1])]),
        ([table(namespaces=["*"], keys=1), table(namespaces=["anonymous"], keys=2)], [(2, "keys", [1])]),
        ([table(namespaces=["anonymous"], keys=1), table(namespaces=["anonymous"], keys=2)], [(2, "keys", [1])]),
        ([table(principals=["a?"], rate=1), table(principals=["a*"], rate=2)], []),
        ([table(principals=["a*"], rate=1), table(principals=["a?", "a", "a?b*"], rate=2)], [(2, "rate", [1])]),
        ([table(principals=["[ab]*"], rate=1), table(principals=["a", "b"], rate=2)], []),
    ],
)
def test_a_table_that_never_holds_is_found(tables: list[str], found: list[tuple[int, str, list[int]]]) -> None:
    assert list(shadows(parse("".join(tables).encode(), "p").limits)) == found


PATTERNS = st.lists(st.text("ab*?", min_size=1, max_size=4), min_size=1, max_size=3)


@given(st.lists(PATTERNS, min_size=2, max_size=4), st.text("abc", min_size=1, max_size=4))
def test_what_is_found_to_hold_never_does_not(said: list[list[str]], name: str) -> None:
    tables = [Table(principals=patterns, max_principal_calls=1 + place) for place, patterns in enumerate(said)]
    held = Rules(tables=tables).principal(name).max_calls
    assert held not in [shadow.table for shadow in shadows(tables)]


@pytest.mark.parametrize("pattern", ["{}-*", "*a*b*{}*" + "c" * 1000, "{}"], ids=["wildcard", "long", "exact"])
def test_no_more_is_looked_through_than_a_moment_is_enough_for(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []
    compared: list[int] = []

    class Counting(Names):
        def __init__(self, texts: Iterable[str]) -> None:
            texts = list(texts)
            super().__init__(texts)
            self.size = sum(map(len, texts))
            compiled.append(self.size)

        def __contains__(self, name: str) -> bool:
            compared.append(len(name) * self.size if "*" in pattern else 1)
            return super().__contains__(name)

    tables = [
        Table(principals=[pattern.format(100 * number + place) for place in range(20)], rate=1) for number in range(200)
    ]
    tables.append(tables[-1])
    monkeypatch.setattr(patterns, "Names", Counting)
    found = list(shadows(tables))
    assert found == ([] if "*" in pattern else [(201, "rate", [200])])
    assert compared
    assert sum(compared) <= shadowing.MOST_WORK
    assert sum(compiled) <= shadowing.MOST_WORK / shadowing.OF_COMPILING or "*" not in pattern
    assert len(compared) <= shadowing.MOST_WORK / shadowing.OF_COMPARING


def test_a_namespace_may_be_called_as_those_are_who_are_nobody() -> None:
    policy = parse(table(namespaces=["anonymous"], keys=7).encode(), "policy.toml")
    assert Rules().with_tables(policy.limits).namespace("anonymous").limits.namespace_keys == 7
    assert [each.limit for each in figures(policy.limits, "", "anonymous")] == [1]


def test_the_first_table_that_has_a_figure_holds_for_a_namespace() -> None:
    policy = parse(
        (
            table(namespaces=["scratch-*"], keys=10, history_commits=5)
            + table(principals=["*"], max_principal_calls=1)
            + table(namespaces=["scratch-big", "?"], keys=1000, bytes=2000, rate=3)
            + table(namespaces=["*"], leases=0, checkpoints=0, history_age=0, history_bytes=7)
        ).encode(),
        "policy.toml",
    )
    rules = Rules().with_tables(policy.limits)
    scratch = rules.namespace("scratch-big")
    assert scratch.rates == (Rate(3, 3), None)
    assert scratch.limits == Limits(namespace_keys=10, namespace_bytes=2000, leases=0, checkpoints=0)
    assert scratch.retention == Retention(commits=5, age=UNBOUNDED, history_bytes=7)
    assert rules.namespace("a").limits.namespace_keys == 1000
    assert rules.namespace("other").limits == Limits(leases=0, checkpoints=0)


def test_the_first_table_that_has_a_figure_holds_for_a_principal() -> None:
    default = PrincipalLimits(Rates(Rate(1, 1), None), 7, 8)
    tables = [
        Table(principals=["team-*"], max_principal_calls=1),
        Table(principals=["team-a", "x[1]", "anonymous"], max_principal_calls=2, rate=20.0, burst=40.0),
        Table(principals=["*"], rate=0.5, rate_bytes=100, max_principal_streams=0),
    ]
    rules = Rules(default, NamespaceLimits(), tables)
    assert rules.principal("team-a") == ((Rate(20, 40), Rate(100, 100)), 1, 0)
    assert rules.principal("team-b") == ((Rate(0.5, 1), Rate(100, 100)), 1, 0)
    assert rules.principal("x[1]").max_calls == 2
    assert rules.principal("x1").max_calls == 7
    assert rules.principal("") == ((Rate(20, 40), None), 2, 8), "no pattern but its own matches nobody"
    assert rules.with_tables([]).principal("team-a") == default


def test_how_many_namespaces_there_may_be_goes_by_the_pattern_that_matches() -> None:
    text = (
        table(namespaces=["team-a-*"], count=5)
        + table(namespaces=["team-*", "scratch-*"], count=20, keys=7)
        + table(namespaces=["*"], count=100)
    )
    tables = parse(text.encode(), "file").limits
    rules = Rules(PrincipalLimits(), NamespaceLimits(), tables)
    names = ("team-a-1", "team-b", "scratch-1", "scratch", "team-a")
    shares = [rules.namespace(name).limits.share for name in names]
    assert shares == [("team-a-", 5), ("team-", 20), ("scratch-", 20), ("", 100), ("team-", 20)]
    assert Rules().namespace("n").limits.share is None


def test_settings_hold_where_no_table_does() -> None:
    settings = load(
        {"rate_principal": 2, "rate_principal_burst": 5, "rate_namespace_bytes": 0.5, "max_principal_calls": 3}
    )
    rules = rules_of(settings)
    assert rules.principal("a") == (Rates(Rate(2, 5), None), 3, settings.max_principal_streams)
    assert rules.namespace("n") == (Rates(None, Rate(0.5, 1)), settings.limits(), settings.retention())


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"rate_principal": -1}, "--rate-principal: -1 must be at least 0"),
        ({"rate_principal": "fast"}, "--rate-principal: 'fast' is not a number"),
        ({"rate_principal": "nan"}, "--rate-principal: "),
        ({"rate_principal": "inf"}, "--rate-principal: "),
        (
            {"rate_namespace_bytes_burst": 5},
            "--rate-namespace-bytes-burst: is of no use without --rate-namespace-bytes",
        ),
        ({"max_deadline": 0}, "--max-deadline: 0 must be at least 0.1"),
        ({"max_calls": -1}, "--max-calls: -1 must be at least 0"),
        ({"max_calls": 1.5}, "--max-calls: 1.5 is not a whole number"),
        ({"keepalive_least": -1}, "--keepalive-least: -1 must be at least 0"),
    ],
)
def test_what_is_wrong_with_a_setting_is_one_line(flags: dict[str, object], problem: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        load(flags)
    assert problem in str(wrong.value)
    assert "\n" not in str(wrong.value)


async def test_a_policy_bounds_what_there_may_be_and_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(files, "SETTLE_SECONDS", 0.0)
    rule = '[[rules]]\nprincipals = ["anonymous"]\nnamespaces = ["*"]\nallow = ["read", "write", "admin"]\n'
    file = tmp_path / "policy.toml"
    file.write_text(rule + table(namespaces=["small*"], keys=1, count=1, history_commits=1))
    async with run(policy=file, compaction_interval=0.1) as running:

        async def put(namespace: str, key: str) -> None:
            await running.state.Put(s.PutRequest(namespace=namespace, key=key), timeout=TIMEOUT)

        for namespace in ("small", "large"):
            for _ in range(3):
                await put(namespace, "a")
        answer = await refused(running.state.Put(s.PutRequest(namespace="small", key="b"), timeout=TIMEOUT))
        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (answer.reason, answer.metadata) == ("QUOTA_EXCEEDED", {"quota": "keys", "limit": "1"})
        answer = await refused(running.state.Put(s.PutRequest(namespace="smaller", key="a"), timeout=TIMEOUT))
        assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert answer.metadata == {"quota": "namespaces", "limit": "1", "prefix": "small"}
        await put("large", "b")

        async def is_compacted() -> bool:
            return (await running.store.position("small")).floor == 2

        await until(is_compacted)
        assert (await running.store.position("large")).floor == 0
        file.write_text(rule + table(namespaces=["small*"], keys=2))

        async def is_allowed() -> bool:
            return running.server._access.bounds.rules.namespace("small").limits.namespace_keys == 2

        await until(is_allowed)
        await put("small", "b")
        await put("smaller", "a")
        file.write_text(rule + table(namespaces=["small*"], keys="many"))
        await until(lambda: running.server._access.files._watched[0]._wrong is not None)
        answer = await refused(running.state.Put(s.PutRequest(namespace="small", key="c"), timeout=TIMEOUT))
        assert answer.metadata == {"quota": "keys", "limit": "2"}, "what was in force stays"
