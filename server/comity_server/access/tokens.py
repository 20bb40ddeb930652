"""The token file: who is known by which bearer token. It holds digests, not tokens.

    # the planner, and the dashboard until the end of the year
    planner    1f0e…64 hexadecimal digits of SHA-256…
    dashboard  9c3b…  expires=2026-12-31T00:00:00Z

A name may have several tokens, so that one can be replaced by another while both hold.

A fast hash is right here, and only here: what keeps a digest from being turned back is the token's 256 random bits,
which nobody can try out. A password that somebody thought of has so few that a fast hash gives it away; so tokens are
made, by `comity token new`, and never thought of. They are looked up by digest: the time that a look-up takes tells
something of a digest at the most, and nobody can choose a token to have a digest.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from comity_server.access.files import Contents, FileError, Watched
from comity_server.names import wrong_with

PREFIX: Final = "cmt_"  # by which a token that has leaked can be found
RANDOM_BYTES: Final = 32
LEAST_CHARACTERS: Final = 22  # what 128 random bits take up in base64
MOST_CHARACTERS: Final = 1024
MOST_TOKENS: Final = 100_000
LINE_BYTES: Final = 1024
TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
EXPIRES: Final = "expires="
EXAMPLE: Final = "2027-01-31T00:00:00Z"


class Token(NamedTuple):
    """Whose a token is, and until when, in seconds since 1970."""

    principal: str
    expires: float | None


Tokens = Mapping[bytes, Token]  # by digest


def watched(path: Path) -> Watched[Tokens]:
    """The token file. Raises FileError."""

    def parse_it(contents: Contents) -> Tokens:
        return parse(contents[0], path)

    return Watched("tokens", [path], parse_it)


def parse(content: bytes, path: Path) -> Tokens:
    """The tokens of a file. Raises FileError, which names the line."""
    tokens: dict[bytes, Token] = {}
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is not UTF-8 at byte {error.start}") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            parts = _parts(line)
            if not parts:
                continue
            digest, token = _entry(parts)
            if digest in tokens:
                raise ValueError(f"the token is on another line too, as that of {tokens[digest].principal!r}")
        except ValueError as error:
            raise FileError(f"{path}: line {number}: {error}") from None
        tokens[digest] = token
        if len(tokens) > MOST_TOKENS:
            raise FileError(f"{path}: has more than {MOST_TOKENS} tokens")
    return tokens


def digest_of(token: str) -> bytes:
    """What a token is known by."""
    return hashlib.sha256(token.encode()).digest()


def new_token() -> str:
    """A token that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def line_of(principal: str, token: str, expires: datetime | None = None) -> str:
    """The line of a file that makes a token somebody's. Raises ValueError if it cannot be."""
    if (wrong := wrong_with_name(principal)) is not None:
        raise ValueError(f"the name {wrong}")
    if TOKEN.fullmatch(token) is None:
        raise ValueError("a token is made of letters, digits and -._~+/, with = at its end")
    if len(token) < LEAST_CHARACTERS:
        raise ValueError(f"the token has fewer than {LEAST_CHARACTERS} characters, so it can be guessed")
    if len(token) > MOST_CHARACTERS:
        raise ValueError(f"the token is longer than {MOST_CHARACTERS} characters")
    line = f"{principal} {digest_of(token).hex()}"
    if expires is not None:
        line += f" {EXPIRES}{expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return line


def wrong_with_name(name: str) -> str | None:
    """What is wrong with a name of the file, if anything: one is a principal's, without spaces, and no comment."""
    if " " in name:
        return "has a space"
    if name.startswith("#"):
        return "begins with #"
    return wrong_with(name)


def time_of(text: str) -> datetime:
    """A time as RFC 3339 has it, with its zone. Raises ValueError."""
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            raise ValueError
        return when.astimezone(UTC)  # which may be beyond the year 9999
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time with its zone, such as {EXAMPLE}") from None


def expired(token: Token) -> bool:
    """Whether a token's time is up."""
    return token.expires is not None and token.expires <= time.time()


def _parts(line: str) -> list[str]:
    """What stands in a line, without its comment."""
    if len(line.encode()) > LINE_BYTES:
        raise ValueError(f"is longer than {LINE_BYTES} bytes")
    parts = line.split()
    comment = next((index for index, part in enumerate(parts) if part.startswith("#")), len(parts))
    return parts[:comment]


def _entry(parts: list[str]) -> tuple[bytes, Token]:
    if len(parts) < 2 or len(parts) > 3:
        # What else stands there may be a token, and this goes to the log.
        raise ValueError(f"is not NAME SHA256 [{EXPIRES}TIME]")
    name, digest, *rest = parts
    if (wrong := wrong_with_name(name)) is not None:
        raise ValueError(f"the name {wrong}")
    if digest.startswith(PREFIX):
        raise ValueError("has a token where its SHA-256 has to be: `comity token hash` tells it")
    if DIGEST.fullmatch(digest.lower()) is None:
        raise ValueError("the SHA-256 is not 64 hexadecimal digits")
    expires = None
    if rest:
        if not rest[0].startswith(EXPIRES):
            raise ValueError(f"is not NAME SHA256 [{EXPIRES}TIME]")
        try:
            expires = time_of(rest[0].removeprefix(EXPIRES)).timestamp()
        except ValueError:  # which says what stands there
            raise ValueError(f"{EXPIRES} is not a time with its zone, such as {EXAMPLE}") from None
    return bytes.fromhex(digest), Token(name, expires)
