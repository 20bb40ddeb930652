"""How `comity diff` shows values: laid out as JSON, by lines of text, or as sizes."""

import difflib
import json
import random

import pytest

from comity import Difference, Entry
from comity.cli.comparison import MOST, compare, kind
from comity.convert import EPOCH

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"


def entry(data: str | bytes, content_type: str = JSON, *, version: int = 1, revision: int = 1) -> Entry:
    stored = data.encode() if isinstance(data, str) else data
    return Entry("key", stored, content_type, version, 1, revision, 0, EPOCH)


def shown(before: Entry | None, after: Entry | None, key: str = "key") -> list[str]:
    return [text for text, _ in compare(Difference(key, before, after))]


def test_json_is_compared_as_it_is_laid_out() -> None:
    before = entry('{"step":1,"todo":["a"]}', version=3, revision=7)
    after = entry('{"step":2,"todo":["a"]}', version=5, revision=12)
    assert shown(before, after, "plan") == [
        "diff plan",
        "changed: version 3 -> 5, revision 7 -> 12",
        "--- plan\trevision 7",
        "+++ plan\trevision 12",
        "@@ -1,5 +1,5 @@",
        " {",
        '-  "step": 1,',
        '+  "step": 2,',
        '   "todo": [',
        '     "a"',
        "   ]",
    ]


def test_a_key_that_came_and_one_that_went() -> None:
    there = entry("line 1\nline 2", TEXT, revision=4)
    assert shown(None, there) == [
        "diff key",
        "created: version 1, revision 4",
        "--- /dev/null",
        "+++ key\trevision 4",
        "@@ -0,0 +1,2 @@",
        "+line 1",
        "+line 2",
    ]
    assert shown(there, None) == [
        "diff key",
        "deleted: version 1, revision 4",
        "--- key\trevision 4",
        "+++ /dev/null",
        "@@ -1,2 +0,0 @@",
        "-line 1",
        "-line 2",
    ]
    assert kind(Difference("key", None, there)) == "created"
    assert kind(Difference("key", there, None)) == "deleted"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (entry("a", TEXT), entry("a\n", TEXT), ["the same, written in another way (1 bytes -> 2 bytes)"]),
        (entry("a\n", TEXT), entry("a\nb\n", TEXT), ["@@ -1 +1,2 @@", " a", "+b"]),
        (entry("a\n", TEXT), entry("a\n\n", TEXT), ["@@ -1 +1,2 @@", " a", "+"]),
        (entry("a\r\nb", TEXT), entry("a\nb", TEXT), ["@@ -1,2 +1,2 @@", "-a\r", "+a", " b"]),
        (entry("key: a\n", "application/yaml"), entry("key: b\n", "application/yaml"), ["-key: a", "+key: b"]),
        (entry("no JSON"), entry("still none"), ["-no JSON", "+still none"]),
        (entry("[" * 5000 + "]" * 5000), entry("[]"), ["+[]"]),
        (entry("[" * 500 + "]" * 500), entry("[]"), ["+[]"]),
        (entry("1"), entry("1", TEXT), [f"content type: {JSON} -> {TEXT}"]),
        (entry('{"a": 1}'), entry('{"a":1}'), ["the same, written in another way (8 bytes -> 7 bytes)"]),
        (entry(b"\xff", BYTES), entry(b"\xff\xfe", BYTES), ["binary values differ (1 bytes -> 2 bytes)"]),
        (entry(b"\x00", BYTES), entry("text", TEXT), ["binary values differ (1 bytes -> 4 bytes)"]),
        (entry("a\x00b", TEXT), entry("a", TEXT), ["binary values differ (3 bytes -> 1 bytes)"]),
        (None, entry(b"\x01", ""), ["binary values differ (absent -> 1 bytes)"]),
    ],
)
def test_values_of_all_kinds(before: Entry | None, after: Entry | None, expected: list[str]) -> None:
    lines = shown(before, after)
    assert [line for line in lines if line in expected] == expected
    assert ("---" in "".join(lines)) == any(line[:1] in "+-" for line in expected)


def test_a_key_stays_on_its_line() -> None:
    lines = shown(entry("1"), entry("2"), "a\n+b\x1b[2J")
    assert lines[0] == "diff a\\n+b\\x1b[2J"
    assert lines[2] == "--- a\\n+b\\x1b[2J\trevision 1"


def test_each_side_has_a_style() -> None:
    styles = {text[0]: style for text, style in compare(Difference("key", entry("1"), entry("2")))}
    assert (styles["-"], styles["+"], styles["@"]) == ("red", "green", "cyan")


def test_hunks_are_those_of_diff() -> None:
    """As long as few lines are alike: which of several equal lines is taken for the same is a matter of taste."""
    rolling = random.Random(7)
    for _ in range(200):
        before = [f"line {number}" for number in range(rolling.randrange(30))]
        after = [line for line in before if rolling.random() < 0.9]
        for _ in range(rolling.randrange(3)):
            after.insert(rolling.randint(0, len(after)), f"new {rolling.random()}")
        if before == after or not before or not after:
            continue
        lines = shown(entry("\n".join(before), TEXT), entry("\n".join(after), TEXT))
        assert lines[4:] == list(difflib.unified_diff(before, after, lineterm=""))[2:]


def test_many_lines_take_a_moment_only() -> None:
    """What is alike at the ends is not compared; and what is not, only up to a length."""
    rolling = random.Random(7)
    before = [rolling.randrange(150) for _ in range(60_000)]
    one = [*before[:30_000], -1, *before[30_001:]]
    assert len(shown(entry(json.dumps(before)), entry(json.dumps(one)))) == 4 + 1 + 3 + 2 + 3
    many = [-1 if place % 50 == 0 else number for place, number in enumerate(before)]
    head, *lines = shown(entry(json.dumps(before)), entry(json.dumps(many)))[4:]
    changed = 59_951  # the first to the last number that differs, of 0, 50, ... 59,950
    assert changed > MOST
    assert head == f"@@ -1,{1 + changed + 3} +1,{1 + changed + 3} @@"
    for side, numbers in (("-", before), ("+", many)):
        assert [line[3:] for line in lines if line[0] == side] == [f"{number}," for number in numbers[:changed]]
