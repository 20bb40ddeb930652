"""What people see: colours and tables, and nothing that a terminal would obey."""

import json

from tests.cli.processes import Comity

BELL = "\x07"
CLEAR = "\x1b[2J"


def test_a_table_of_entries(comity: Comity) -> None:
    comity("put", "plan", '{"step": 1}')
    comity("put", "bold[bold]", "x" * 300)
    shown = comity.on_terminal("list")
    assert "\x1b[1m" in shown
    header, _, *rows = [line for line in shown.splitlines() if line.strip()]
    assert "version" in header
    assert any("bold[bold]" in row and "…" in row for row in rows)
    assert any('{"step":1}' in row for row in rows)
    assert "value" not in comity.on_terminal("list", "--keys-only")
    assert comity.on_terminal("list", "none/") == ""


def test_a_value(comity: Comity) -> None:
    comity("put", "plan", '{"step":[1]}')
    shown = comity.on_terminal("get", "plan")
    assert "\x1b[" in shown
    assert '"step"' in shown
    assert shown.count("\n") == 5
    comity("put", "text", "[red]no markup[/red]\n\tlines\n")
    assert comity.on_terminal("get", "text").expandtabs() == "[red]no markup[/red]\n\tlines\n".expandtabs()


def test_no_colours_for_who_wants_none(comity: Comity) -> None:
    comity.environment["NO_COLOR"] = "1"
    comity("put", "plan", "1")
    assert "\x1b[3" not in comity.on_terminal("log")


def test_json_is_the_same_on_a_terminal(comity: Comity) -> None:
    comity("put", "plan", json.dumps("x" * 300))
    assert json.loads(comity.on_terminal("get", "plan", "--json")) == comity("get", "plan", "--json").object


def test_nothing_that_a_terminal_would_obey(comity: Comity) -> None:
    key = f"a{CLEAR}{BELL}\u202e\x9b"
    comity("put", key, f"v{CLEAR}\x9b", "--author", f"me{CLEAR}", "--message", f"why{BELL}")
    comity("put", "json", json.dumps(CLEAR))
    comity("checkpoint", "mark", "--author", f"me{CLEAR}", "--message", f"why{BELL}", "--label", f"k{CLEAR}=v{BELL}")
    fork = f"{comity.namespace}-fork"
    comity("fork", fork, "--from", "0")
    comity("put", key, f"w{CLEAR}", "--namespace", fork)
    for arguments in (
        ["list"],
        ["get", key],
        ["log"],
        ["log", "--oneline"],
        ["blame"],
        ["blame", "--json"],
        ["checkpoints"],
        ["checkpoints", "--json"],
        ["diff", "0"],
        ["diff", "0", "--keys-only"],
        ["diff", "0", "--json"],
        ["restore", "0", "--dry-run"],
        ["restore", key],
        ["merge", fork],
        ["merge", fork, "--json"],
        ["list", "--json"],
        ["log", "--json"],
        ["get", key + "?"],
        ["put", key, "1", "--if-version", "7"],
        ["put", key, "1", "--if-version", "7", "--json"],
        ["delete", key],
    ):
        shown = comity.on_terminal(*arguments)
        for unsafe in (CLEAR, BELL, "\u202e", "\x9b"):
            assert unsafe not in shown, (arguments, shown)
    comity("put", key, f"v{CLEAR}")
    for arguments in (["list"], ["log"], ["log", "--oneline"], ["blame"], ["checkpoints"], ["diff", "0"]):
        piped = comity(*arguments).text
        assert CLEAR not in piped
        assert "\\x1b[2J" in piped


def test_the_rest_is_for_people_too(comity: Comity) -> None:
    comity("put", "key", "1", "--author", "planner")
    assert "planner" in comity.on_terminal("log")
    assert "key_count:" in comity.on_terminal("status")
    assert comity.namespace in comity.on_terminal("namespaces", comity.namespace)
    assert "SERVING" in comity.on_terminal("health")


def test_a_watch(comity: Comity) -> None:
    comity("put", "key", "1", "--author", "planner", "--message", "why")
    comity("put", "key", "2")
    shown = comity.on_terminal("watch", "key", "--from", "1", "--previous", until="was")
    first, second, *_ = shown.splitlines()
    assert "planner" in first
    assert "why" in first
    assert "\x1b[" in second


def test_what_is_known_from_git_has_its_colours(comity: Comity) -> None:
    comity("put", "text", "old\n\tline", "--author", "ann", "--message", "begin")
    comity("put", "text", "new\n\tline")
    shown = comity.on_terminal("diff", "1")
    assert "\x1b[31m-old" in shown
    assert "\x1b[32m+new" in shown
    assert "\x1b[36m@@ -1,2 +1,2 @@" in shown
    assert "\x1b[33mchanged" in comity.on_terminal("diff", "1", "--keys-only")
    log = comity.on_terminal("log")
    assert "\x1b[33mrevision 2\x1b[0m\nDate: " in log
    assert "\nAuthor: ann\n" in log
    assert "\n    begin\n" in log
    rows = comity.on_terminal("blame")
    assert "message" in rows
    assert "text" in rows
