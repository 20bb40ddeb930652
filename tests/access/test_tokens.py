"""The token file, and `comity token`, which writes it."""

import codecs
import contextlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from comity_server.access import tokens
from comity_server.access.files import FileError
from comity_server.access.token_commands import command
from comity_server.access.tokens import Token, digest_of, parse

HEX = "ab" * 32
OTHER = "cd" * 32
PATH = Path("tokens")


def test_lines_comments_and_times() -> None:
    content = f"""
# a comment

planner {HEX}   # another one
  dashboard\t{OTHER.upper()}  expires=2027-01-31T01:00:00+01:00\r
"""
    assert parse(content.encode(), PATH) == {
        bytes.fromhex(HEX): Token("planner", None),
        bytes.fromhex(OTHER): Token("dashboard", datetime(2027, 1, 31, tzinfo=UTC).timestamp()),
    }
    assert parse(b"", PATH) == {}
    assert parse(codecs.BOM_UTF8 + f"planner {HEX}".encode(), PATH)[bytes.fromhex(HEX)].principal == "planner"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("planner", "is not NAME SHA256"),
        (f"planner {HEX} x y", "is not NAME SHA256"),
        (f"planner {HEX} until=2027", "is not NAME SHA256"),
        (f"planner {HEX[:-1]}", "the SHA-256 is not 64 hexadecimal digits"),
        (f"planner {HEX[:-1]}g", "the SHA-256 is not 64 hexadecimal digits"),
        (f"planner {HEX[:-1]}\N{FULLWIDTH DIGIT ONE}", "the SHA-256 is not 64 hexadecimal digits"),
        ("planner cmt_abcdefghijklmnopqrstuvwx", "has a token where its SHA-256 has to be"),
        (f"planner {HEX} expires=", "is not a time with its zone"),
        (f"planner {HEX} expires=2027-01-31T00:00:00", "is not a time with its zone"),
        (f"planner {HEX} expires=0001-01-01T00:00:00+23:00", "is not a time with its zone"),
        (f"planner {HEX} expires=2027-02-31T00:00:00Z", "is not a time with its zone"),
        (f"planner {HEX} expires=cmt_abcdefghijklmnopqrstuvwx", "is not a time with its zone"),
        (f"anonymous {HEX}", "the name may not be 'anonymous'"),
        (f"anonymous/x {HEX}", "the name may not begin with 'anonymous/'"),
        (f"a\x07b {HEX}", "the name has characters that cannot be printed"),
        (f"{'n' * 129} {HEX}", "the name is longer than 128 bytes"),
        (f"{'n' * 2000} {HEX}", "is longer than 1024 bytes"),
        (f"planner {HEX}\nother {HEX}", "line 2: the token is on another line too, as that of 'planner'"),
    ],
)
def test_a_wrong_line_is_named(line: str, says: str) -> None:
    with pytest.raises(FileError) as caught:
        parse(line.encode(), PATH)
    assert str(caught.value).startswith("tokens: line ")
    assert says in str(caught.value)
    assert "cmt_abc" not in str(caught.value)


def test_a_file_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileError, match="tokens: is not UTF-8 at byte 1"):
        parse(b"a\xff", PATH)
    monkeypatch.setattr(tokens, "MOST_TOKENS", 1)
    with pytest.raises(FileError, match="has more than 1 tokens"):
        parse(f"a {HEX}\nb {OTHER}".encode(), PATH)


@settings(max_examples=50)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace"))))
def test_whatever_a_file_holds_it_is_read_or_wrong(content: bytes) -> None:
    with contextlib.suppress(FileError):
        parse(content, PATH)


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(command, list(arguments), input=stdin)


def test_a_new_token_is_appended_and_told_once(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    made = [run("new", name, "--file", str(file)).stdout.strip() for name in ("planner", "planner", "other")]
    assert len(set(made)) == 3
    assert all(re.fullmatch(r"cmt_[A-Za-z0-9_-]{43}", token) for token in made)
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    assert not any(token.encode() in content for token in made)
    assert [parse(content, file)[digest_of(token)].principal for token in made] == ["planner", "planner", "other"]


def test_a_line_is_appended_to_a_file_without_a_last_newline(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"planner {HEX}")
    run("new", "other", "--file", str(file), "--expires", "90d")
    other = parse(file.read_bytes(), file)
    assert sorted(token.principal for token in other.values()) == ["other", "planner"]
    (expires,) = [token.expires for token in other.values() if token.principal == "other"]
    assert expires is not None
    assert abs(expires - (datetime.now(UTC) + timedelta(days=90)).timestamp()) < 60


def test_without_a_file_the_line_is_told_beside_the_token() -> None:
    made = run("new", "planner")
    assert parse(made.stderr.encode(), PATH)[digest_of(made.stdout.strip())].principal == "planner"


def test_the_line_of_a_token_that_there_is() -> None:
    token = "0123456789abcdefghijklmn"
    for stdin in (token, f"{token}\n", f"{token}\r\n", f"\N{ZERO WIDTH NO-BREAK SPACE}{token}"):
        made = run("hash", "planner", "--expires", "2999-01-01T00:00:00Z", stdin=stdin)
        assert parse(made.stdout.encode(), PATH).keys() == {digest_of(token)}
        assert "expires=2999-01-01T00:00:00Z" in made.stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (["new", ""], "", "the name is empty"),
        (["new", "a b"], "", "the name has a space"),
        (["new", "#a"], "", "the name begins with #"),
        (["new", "a\nb"], "", "the name has characters that cannot be printed"),
        (["new", "anonymous"], "", "the name may not be 'anonymous'"),
        (["new", "a", "--expires", "x"], "", "is not a time with its zone"),
        (["new", "a", "--expires", "2020-01-01T00:00:00Z"], "", "is not in the future"),
        (["new", "a", "--expires", "0d"], "", "is not in the future"),
        (["new", "a", "--expires", "999999999d"], "", "is not a time with its zone"),
        (["hash", "a"], "", "a token is made of"),
        (["hash", "a"], "password", "fewer than 22 characters"),
        (["hash", "a"], "one two three four five six\n", "a token is made of"),
        (["hash", "a"], "x" * 30 + "\n\n", "a token is made of"),
        (["hash", "a"], "x" * 2000, "longer than 1024 characters"),
    ],
)
def test_what_is_refused(arguments: list[str], stdin: str, says: str) -> None:
    ended = run(*arguments, stdin=stdin)
    assert ended.exit_code == 2
    assert says in ended.stderr
    assert not ended.stdout


def test_a_file_that_is_wrong_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("planner\n")
    ended = run("new", "other", "--file", str(file))
    assert ended.exit_code == 1
    assert "line 1: is not NAME SHA256" in ended.stderr
    assert file.read_text() == "planner\n"
    assert not ended.stdout
    assert "Is a directory" in (said := run("new", "other", "--file", str(tmp_path)).stderr) or "regular" in said
