"""The policy file: what is wrong with one, and what one says, also held against a plain reference."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from comity_server.access.checking import command
from comity_server.access.hints import hints
from comity_server.access.patterns import Names
from comity_server.access.policy import PRINCIPALS, Document, Policy, PolicyError, parse
from comity_server.access.rights import ADMIN, NOTHING, READ, WRITE, Access
from tests import servers
from tests.waiting import wait_until

RULE = {"principals": ["planner"], "namespaces": ["research"], "allow": ["read"]}


def policy(*rules: dict[str, Any]) -> Policy:
    return Policy(Document.model_validate({"rules": [RULE | rule for rule in rules]}))


def may(policy: Policy, principal: str, namespace: str, access: Access, target: str) -> bool:
    return policy.rights(principal, namespace).may(access, target)


# What is wrong


def rule(**fields: object) -> str:
    return "[[rules]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in (RULE | fields).items())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rules", "is not TOML: Expected '=' after a key in a key/value pair (at end of document)"),
        ("a = " + "[" * 10_000, "is not TOML: maximum recursion depth exceeded"),
        ("role = []", "role is nothing that a policy has"),
        ("rules = 1", "rules is not a list"),
        ("rules = ['a']", "rule 1 is not a table: write [[rules]] or [[limits]] before each"),
        ("[rules]", "rules is not a list"),
        (rule() + rule() + "user = 1", "rule 2, user is nothing that a policy has"),
        ("[[rules]]\nnamespaces = ['a']\nallow = ['read']", "rule 1, principals is required"),
        ("[[rules]]\nprincipals = ['a']\nallow = ['read']", "rule 1, namespaces is required"),
        ("[[rules]]\nprincipals = ['a']\nnamespaces = ['a']", "rule 1, allow is required"),
        (rule(principals="a"), "rule 1, principals is not a list"),
        (rule(principals=[]), "rule 1, principals must not be empty"),
        (rule(principals=["a"] * 1001), "rule 1, principals is longer than 1000"),
        (rule(principals=["a", 1]), "rule 1, principals[1] is not text"),
        (rule(principals=["a" * 1025]), "rule 1, principals[0] is longer than 1024"),
        (
            rule(principals=[""]),
            "rule 1, principals[0]: must not be empty: 'anonymous' stands for nobody in particular",
        ),
        (
            "[[limits]]\nprincipals = ['a/{principal}']\nrate = 1",
            "limit 1, principals[0]: must not have {principal} in it: each that matches has all of a limit for itself",
        ),
        (
            "[[limits]]\nnamespaces = ['Research']\nrate = 1",
            "limit 1, namespaces[0]: matches no namespace: they are made of a-z, 0-9, '.', '_' and '-'",
        ),
        (
            rule(namespaces=["-a"]),
            "rule 1, namespaces[0]: matches no namespace: they begin with one of a-z and 0-9",
        ),
        (
            rule(namespaces=["a" * 63, "a*" * 64]),
            "rule 1, namespaces[1]: matches no namespace: they have 63 characters at the most",
        ),
        (rule(namespaces=[""]), "rule 1, namespaces[0]: must not be empty: '*' matches every namespace"),
        (
            rule(namespaces=["a", "Research"]),
            "rule 1, namespaces[1]: matches no namespace: they are made of a-z, 0-9, '.', '_' and '-'",
        ),
        (
            rule(namespaces=["{user}"]),
            "rule 1, namespaces[0]: has a brace in it that is not of {principal}: one of a key is written twice",
        ),
        (
            rule(namespaces=["{principal}*"]),
            "rule 1, namespaces[0]: must have another character between {principal} and '*' or '?'",
        ),
        (
            rule(namespaces=["?{principal}"]),
            "rule 1, namespaces[0]: must have another character between {principal} and '*' or '?'",
        ),
        (rule(prefixes=[]), "rule 1, prefixes must not be empty"),
        (rule(prefixes=["a\0"]), "rule 1, prefixes[0]: must not have a NUL in it: no key has one"),
        (
            rule(prefixes=["a/", "a/{principal}"]),
            "rule 1, prefixes[1]: must have a character after {principal}, as '/': else a has what is ab's",
        ),
        (
            rule(prefixes=["{principal!r}/"]),
            "rule 1, prefixes[0]: has a brace in it that is not of {principal}: one of a key is written twice",
        ),
        (rule(allow=[]), "rule 1, allow must not be empty"),
        (rule(allow=["all"]), "rule 1, allow[0] is not 'read', 'write' or 'admin'"),
        (rule(allow=["Read"]), "rule 1, allow[0] is not 'read', 'write' or 'admin'"),
        (
            rule(allow=["read", "admin"], prefixes=["a"]),
            "rule 1, allow: admin is of the whole namespace, so prefixes must be left away or have '' in it",
        ),
        (
            rule(principals=["*", "anonymous"], prefixes=["{principal}/"]),
            "rule 1, principals: 'anonymous' has no name for the {principal} of the rule",
        ),
        (
            rule(principals=["anonymous"], namespaces=["of-{principal}"]),
            "rule 1, principals: 'anonymous' has no name for the {principal} of the rule",
        ),
        (rule() * 1001, "rules is longer than 1000"),
        ("#" * (1024 * 1024 + 1), "is larger than 1048576 bytes"),
    ],
    ids=lambda text: text[:60].replace("\n", " ").replace("\0", "NUL"),
)
def test_what_is_wrong_is_said_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(text.encode(), "policy.toml")
    assert str(caught.value) == f"policy.toml: {problem}"


def test_what_is_no_text() -> None:
    with pytest.raises(PolicyError, match=r"^policy.toml: is not UTF-8$"):
        parse(b"\xff", "policy.toml")


def test_all_that_is_wrong_is_known() -> None:
    with pytest.raises(PolicyError) as caught:
        parse((rule(allow=["a"]) + rule(principals=[])).encode(), "p")
    assert str(caught.value) == "p: rule 1, allow[0] is not 'read', 'write' or 'admin' (and 1 more)"
    assert caught.value.problems[1] == "p: rule 2, principals must not be empty"


def test_all_that_is_wrong_with_a_rule_is_known() -> None:
    with pytest.raises(PolicyError) as caught:
        parse(
            rule(principals=["anonymous"], namespaces=["{", "{principal}"], prefixes=[7], allow=["admin"]).encode(), "p"
        )
    assert [each.removeprefix("p: rule 1, ") for each in caught.value.problems] == [
        "namespaces[0]: has a brace in it that is not of {principal}: one of a key is written twice",
        "prefixes[0] is not text",
        "allow: admin is of the whole namespace, so prefixes must be left away or have '' in it",
        "principals: 'anonymous' has no name for the {principal} of the rule",
    ]


WORDS = ["principals", "namespaces", "prefixes", "allow", "[[limits]]", "rate", "read", *"""=[],.'"{}#*?\n\0\u00e91"""]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)


@settings(max_examples=50)
@given(st.binary(max_size=60) | TEXTS.map(str.encode))
def test_any_content_is_a_policy_or_a_line(content: bytes) -> None:
    problem = "p: "
    try:
        parse(b"[[rules]]\n" + content, "p")
    except PolicyError as error:
        problem = str(error)
    assert problem.startswith("p: ")
    assert problem.isprintable()


# What is said


def test_a_byte_order_mark_is_no_part_of_a_policy() -> None:
    said = parse(b"\xef\xbb\xbf" + rule().replace("\n", "\r\n").encode(), "policy.toml")
    assert may(said, "planner", "research", READ, "a")


def test_an_empty_file_denies_everything() -> None:
    empty = parse(b"", "p")
    for principal in ("", "planner"):
        assert empty.rights(principal, "research") is NOTHING
        assert not empty.administers(principal)
    assert not empty.knows_anonymous


MATCHES = [
    # principals, namespaces, who, where
    (["planner"], ["research"], "planner", "research", True),
    (["planner"], ["research"], "Planner", "research", False),
    (["planner"], ["research"], "planner2", "research", False),
    (["planner"], ["research"], "planner", "research2", False),
    (["a", "team-*"], ["x", "research-*"], "team-1", "research-1", True),
    (["team-?"], ["n-?"], "team-1", "n-1", True),
    (["team-?"], ["n-?"], "team-12", "n-1", False),
    (["team-?"], ["n-?"], "team-1", "n-", False),
    (["*"], ["*"], "any\nbody", "any", True),
    # nobody in particular
    (["*"], ["*"], "", "research", False),
    (["anonymous"], ["*"], "", "research", True),
    (["anonymous"], ["*"], "anonymous", "research", False),
    (["*"], ["*"], "anonymous", "research", True),
    # brackets are nothing special
    (["[ab]"], ["*"], "a", "research", False),
    (["[ab]"], ["*"], "[ab]", "research", True),
    (["[!a]*"], ["*"], "b", "research", False),
    # a place for the name
    (["*"], ["of-{principal}"], "ann", "of-ann", True),
    (["*"], ["of-{principal}"], "ann", "of-bob", False),
    (["*"], ["{principal}-*"], "ann", "ann-1", True),
    (["*"], ["{principal}-*"], "ann", "anna-1", False),
    (["*"], ["*.{principal}"], "ann", "x.ann", True),
    (["*"], ["*.{principal}"], "ann", "x.joann", False),
    # a name is no pattern
    (["*"], ["{principal}"], "*", "research", False),
    (["*"], ["{principal}"], "resear??", "research", False),
    (["*"], ["{principal}"], "[r]esearch", "research", False),
    (["*"], ["{principal}"], "{principal}", "research", False),
    # a name that no namespace can have
    (["*"], ["{principal}", "a"], "Ann", "a", True),
    (["*"], ["{principal}"], "Ann", "ann", False),
    # a name must not reach into what another's stands for
    (["*"], ["{principal}-*"], "ann-x", "ann-x-1", False),
    (["*"], ["*.{principal}"], "x.ann", "1.x.ann", False),
    (["*"], ["of-{principal}"], "ann-x", "of-ann-x", True),
]


@pytest.mark.parametrize(("principals", "namespaces", "principal", "namespace", "holds"), MATCHES)
def test_where_a_rule_holds(
    principals: list[str], namespaces: list[str], principal: str, namespace: str, holds: bool
) -> None:
    said = policy({"principals": principals, "namespaces": namespaces})
    assert may(said, principal, namespace, READ, "") is holds


KEYS = [
    # prefixes, who, target
    ([""], "ann", "", True),
    ([""], "ann", "any", True),
    (["plans/"], "ann", "plans/", True),
    (["plans/"], "ann", "plans/1", True),
    (["plans/"], "ann", "plans", False),
    (["plans/"], "ann", "", False),
    (["plans/"], "ann", "Plans/1", False),
    (["a/", "b/"], "ann", "b/1", True),
    (["a*/"], "ann", "ab/", False),
    (["a*/"], "ann", "a*/", True),
    (["agents/{principal}/"], "ann", "agents/ann/1", True),
    (["agents/{principal}/"], "ann", "agents/bob/1", False),
    (["agents/{principal}/"], "ann", "agents/", False),
    (["agents/{principal}/"], "*", "agents/ann/", False),
    (["agents/{principal}/"], "*", "agents/*/", True),
    (["agents/{principal}/"], "", "agents//", False),
    (["agents/{principal}/", "shared/"], "ann/x", "agents/ann/x/1", False),
    (["agents/{principal}/", "shared/"], "ann/x", "shared/1", True),
    (["agents/{principal}|"], "spiffe://x/ann", "agents/spiffe://x/ann|1", True),
    (["{{{principal}}}/"], "ann", "{ann}/", True),
    (["{{principal}}/"], "ann", "{principal}/", True),
    (["{{principal}}/"], "ann", "ann/", False),
    (["ä/"], "ann", "ä/1", True),
]


@pytest.mark.parametrize(("prefixes", "principal", "target", "allowed"), KEYS)
def test_what_a_rule_allows(prefixes: list[str], principal: str, target: str, allowed: bool) -> None:
    said = policy({"principals": ["*"], "namespaces": ["*"], "prefixes": prefixes})
    assert may(said, principal, "research", READ, target) is allowed


def test_each_access_is_allowed_by_itself() -> None:
    said = policy({"prefixes": ["a/"]}, {"prefixes": ["a/b/"], "allow": ["write"]}, {"allow": ["admin"]})
    rights = said.rights("planner", "research")
    assert [rights.may(READ, "a/1"), rights.may(WRITE, "a/1"), rights.may(READ | WRITE, "a/1")] == [True, False, False]
    assert rights.may(READ | WRITE, "a/b/1")
    assert rights.may(ADMIN, "")
    assert not said.rights("planner", "research-2").may_somewhere(READ | WRITE | ADMIN)


def test_a_prefix_has_to_be_within_that_of_one_rule() -> None:
    said = policy({"prefixes": ["a/0", "a/1"]}, {"prefixes": ["a/2"]})
    assert not may(said, "planner", "research", READ, "a/")
    assert may(said, "planner", "research", READ, "a/2/")


def test_who_administers_all() -> None:
    said = policy(
        {"principals": ["ops"], "namespaces": ["*"], "allow": ["admin"]},
        {"principals": ["lead"], "namespaces": ["?*", "r*"], "allow": ["admin"]},
        {"principals": ["reader"], "namespaces": ["*"]},
        {"principals": ["*"], "namespaces": ["{principal}"], "allow": ["admin"]},
    )
    assert {who for who in ("ops", "lead", "reader", "*", "") if said.administers(who)} == {"ops"}


def test_no_namespace_has_no_rights() -> None:
    assert policy({"namespaces": ["*"]}).rights("planner", "") is NOTHING


def test_what_is_remembered_has_bounds() -> None:
    said = policy({"namespaces": ["*"]})
    for number in range(10_000):
        said.rights("planner", f"n{number}")
        said.rights(f"p{number}", "n")
    remembered = [each for each in vars(said).values() if hasattr(each, "cache_info")]
    assert remembered
    large = [each for each in remembered if each.cache_info().currsize > 4096]
    assert large == [said._matching]  # a number for each principal
    assert said._matching.cache_info().maxsize == PRINCIPALS


def test_only_rules_that_may_be_of_a_namespace_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lists namespaces asks of all that there are, and there may be a thousand rules."""
    rules = [{"principals": ["*"], "namespaces": [f"team{number}-{{principal}}-*"]} for number in range(300)]
    said = policy(*rules, {"principals": ["*"], "namespaces": ["all-?"]})
    assert said.rights("ann", "all-0").may_somewhere(READ)
    asked: list[str] = []
    contains = Names.__contains__

    def counted(names: Names, name: str) -> bool:
        asked.append(name)
        return contains(names, name)

    monkeypatch.setattr(Names, "__contains__", counted)
    assert not said.rights("ann", "other").may_somewhere(READ)
    assert asked == []
    assert said.rights("ann", "team12-ann-x").may_somewhere(READ)
    assert not said.rights("ann", "team12-eve-x").may_somewhere(READ)
    assert len(asked) == 2


def test_the_patterns_of_principals_are_gone_through_once_for_each() -> None:
    said = policy(*({"principals": ["p*"], "namespaces": ["n"], "prefixes": [each]} for each in ("", "a/{principal}/")))
    for _ in range(2):
        for number in range(5_000):  # more than grants are remembered of
            said.rights(f"p{number}", "n")
    assert said._matching.cache_info().misses == 5_000
    (shared, own), (same, other) = (said.grants(principal, "n") for principal in ("p1", "p2"))
    assert shared is same
    assert (own.prefixes, other.prefixes) == (("a/p1/",), ("a/p2/",))


# Against a plain reference


class Said(NamedTuple):
    principals: list[str]
    namespaces: list[str]
    prefixes: list[str]
    allow: list[str]


def stands_for(pattern: str, text: str) -> bool:
    """The meaning of `*` and `?`, in as few words as there are."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(stands_for(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and stands_for(pattern[1:], text[1:])


def allows(rules: list[Said], principal: str, namespace: str, access: str, target: str) -> bool:
    """The meaning of a policy without places for names."""
    return any(
        any(stands_for(pattern, principal) for pattern in rule.principals)
        and any(stands_for(pattern, namespace) for pattern in rule.namespaces)
        and any(target[: len(prefix)] == prefix for prefix in rule.prefixes)
        and access in rule.allow
        for rule in rules
    )


def texts(alphabet: str, least: int = 1) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=4)


def lists(elements: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(elements, min_size=1, max_size=12)


rules = st.lists(
    st.builds(
        Said,
        lists(texts("ab*?[]")),
        lists(texts("ab*?")),
        lists(texts("xy/", 0)),
        lists(st.sampled_from(["read", "write"])).map(lambda some: sorted(set(some))),
    ),
    max_size=4,
)


@given(rules, texts("ab[]*"), texts("ab"), texts("xy/", 0))
def test_a_policy_allows_what_the_reference_does(said: list[Said], principal: str, namespace: str, target: str) -> None:
    asked = Policy(Document.model_validate({"rules": [rule._asdict() for rule in said]}))
    reading = allows(said, principal, namespace, "read", target)
    writing = allows(said, principal, namespace, "write", target)
    assert may(asked, principal, namespace, READ, target) is reading
    assert may(asked, principal, namespace, WRITE, target) is writing
    assert may(asked, principal, namespace, READ | WRITE, target) is (reading and writing)


@given(
    texts("ab/*?[{"), texts("ab/*?[{"), st.sampled_from(["{principal}/", "x{principal}b", "{principal}a{principal}/"])
)
def test_what_is_one_principals_by_name_is_no_others(one: str, other: str, prefix: str) -> None:
    said = policy({"principals": ["*"], "prefixes": [prefix]})
    key = prefix.replace("{principal}", other) + "1"
    if one != other and may(said, other, "research", READ, key):
        assert not may(said, one, "research", READ, key)


@given(
    texts("ab-.*"), texts("ab-."), st.sampled_from(["{principal}-*", "*.{principal}", "?-{principal}.?", "{principal}"])
)
def test_what_is_one_principals_namespace_is_no_others(one: str, other: str, pattern: str) -> None:
    said = policy({"principals": ["*"], "namespaces": [pattern]})
    namespace = pattern.replace("{principal}", other).replace("*", "a").replace("?", "a")
    if one != other and may(said, other, namespace, READ, ""):
        assert not may(said, one, namespace, READ, "")


# `comity policy check`

FILE = """
[[rules]]
principals = ["planner", "team-*"]
namespaces = ["research"]
prefixes = ["plans/", "agents/{principal}/"]
allow = ["read", "write"]
[[rules]]
principals = ["*"]
namespaces = ["*"]
allow = ["read"]
[[rules]]
principals = ["ops"]
namespaces = ["*"]
allow = ["admin"]
[[limits]]
principals = ["planner"]
rate = 5
burst = 20
[[limits]]
principals = ["plan*"]
rate = 8
burst = 9
max_principal_calls = 3
[[limits]]
namespaces = ["research"]
history_age = 1.5
"""


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ([], "FILE: 3 rules and 3 limits"),
        (
            ["--principal", "planner", "--namespace", "research"],
            "read 'plans/': rule 1\nread 'agents/planner/': rule 1\n"
            "write 'plans/': rule 1\nwrite 'agents/planner/': rule 1\nread all keys: rule 2\n"
            "rate of the principal: 5: limit 1\nburst of the principal: 20: limit 1\n"
            "max_principal_calls of the principal: 3: limit 2\nhistory_age of the namespace: 1.5: limit 3",
        ),
        (["--principal", "ops", "--namespace", "a"], "read all keys: rule 2\nadmin: rule 3"),
        (["--principal", "anonymous", "--namespace", "a"], "everything: denied"),
        (
            ["--principal", "team-1", "--namespace", "research", "--key", "plans/1"],
            "read: rule 1 and rule 2\nwrite: rule 1\nadmin: denied",
        ),
        (
            ["--principal", "team-1", "--namespace", "research", "--prefix", "plans"],
            "read: rule 2\nwrite: denied\nadmin: denied",
        ),
        (
            ["--principal", "a", "--namespace", "b", "--key", "c", "--json"],
            '{"principal":"a","namespace":"b","allowed":[{"access":"read","rules":[2]},{"access":"write","rules":[]},'
            '{"access":"admin","rules":[]}],"limits":[]}',
        ),
        (["--json"], '{"file":"FILE","rules":3,"limits":3,"warnings":[]}'),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_check(tmp_path: Path, asked: list[str], answer: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(FILE)
    done = CliRunner().invoke(command, ["check", str(file), *asked])
    assert (done.exit_code, done.output) == (0, answer.replace("FILE", str(file)) + "\n")


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (["--principal", "a"], "--principal and --namespace go together"),
        (["--namespace", "a"], "--principal and --namespace go together"),
        (["--key", "a"], "--key and --prefix need --principal and --namespace"),
        (["--principal", "a", "--namespace", "a", "--key", "a", "--prefix", "a"], "exclude each other"),
        (["--principal", "", "--namespace", "a"], "must not be empty"),
        (["--principal", "a", "--namespace", "A"], "--namespace: must match"),
    ],
)
def test_check_with_other_options(tmp_path: Path, asked: list[str], complaint: str) -> None:
    done = CliRunner().invoke(command, ["check", str(tmp_path / "policy.toml"), *asked])
    assert done.exit_code == 2
    assert complaint in done.output


def test_check_says_all_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(rule(allow=["a"]) + rule(principals=[]))
    done = CliRunner().invoke(command, ["check", str(file)])
    assert done.exit_code == 1
    assert [line.partition(": ")[2] for line in done.output.splitlines()] == [
        f"{file}: rule 1, allow[0] is not 'read', 'write' or 'admin'",
        f"{file}: rule 2, principals must not be empty",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["0 rules", "warning: no rule allows anything, so nobody may do anything"]),
        (
            "[[limits]]\nprincipals = ['*']\nrate = 1",
            ["0 rules and 1 limit", "warning: no rule allows anything, so nobody may do anything"],
        ),
        (
            rule()
            + "[[limits]]\nprincipals = ['batch-*']\nrate = 1\n"
            + "[[limits]]\nprincipals = ['batch-1']\nrate = 2\nburst = 9\n",
            [
                "1 rule and 2 limits",
                "warning: limit 2, rate: never holds, as limit 1 before it has one for all the same names:"
                " put the narrower first",
            ],
        ),
        (
            rule(prefixes=["b/", "a/*"]),
            [
                "1 rule",
                "warning: rule 1, prefixes[1]: '*' stands for itself in a prefix, after which all is free anyway",
            ],
        ),
    ],
)
def test_check_tells_what_can_hardly_be_meant(tmp_path: Path, text: str, said: list[str]) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    done = CliRunner().invoke(command, ["check", str(file)])
    assert (done.exit_code, done.output.splitlines()) == (0, [f"{file}: {each}" for each in said])


def test_a_server_that_does_not_ask_who_calls_tells_that_nobody_may_do_anything(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(rule())
    with servers.start("--store", "memory:", "--policy", str(file)) as server:
        wait_until(lambda: "nobody may do anything: there is no authentication" in server.log())
    assert list(hints(policy({}), authenticates=True)) == []
    assert list(hints(policy({"principals": ["anonymous"]}), authenticates=False)) == []


def test_check_of_no_file(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(command, ["check", str(tmp_path / "none")]).exit_code == 4
    assert runner.invoke(command, ["check", str(tmp_path)]).exit_code == 1
