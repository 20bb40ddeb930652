"""The policy file: which principals may do what, in which namespaces, to the keys under which prefixes.

What no rule allows is denied. A rule holds for a principal in a namespace if a pattern of each matches; then it allows
what it says, to the keys under its prefixes.
"""

import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from comity_server.access.files import FileError, Watched
from comity_server.access.limits import Table as LimitsTable
from comity_server.access.patterns import Heads, Names, NamespacePattern, Prefix, without_classes
from comity_server.access.rights import ADMIN, ANY, EVERYTHING, NOTHING, READ, WRITE, Access, Rights
from comity_server.access.shadows import shadows
from comity_server.access.tables import Table, texts
from comity_server.names import ANONYMOUS

FILE_BYTES: Final = 1024 * 1024
RULES: Final = 1000
TEXTS: Final = 1000  # of each sort, of one rule
TEXT_LENGTH: Final = 1024
REMEMBERED: Final = 4096  # pairs of a principal and a namespace, of which callers choose the second
PRINCIPALS: Final = 100_000  # of whom it is remembered which rules are theirs: as many as a token file may name
GRANTED: Final = 1024  # principals whose grants are remembered: those that have their names in them may be large

ACCESS: Final = {"read": READ, "write": WRITE, "admin": ADMIN}


class PolicyError(FileError):
    """The file is no policy. The message is one line; `problems` has one for each thing that is wrong."""

    def __init__(self, *problems: str) -> None:
        more = len(problems) - 1
        super().__init__(problems[0] + (f" (and {more} more)" if more else ""))
        self.problems = problems


def _principal(text: str) -> str:
    if not text:
        raise ValueError(f"must not be empty: {ANONYMOUS!r} stands for nobody in particular")
    return text


def _namespace(text: str) -> str:
    NamespacePattern(text)
    return text


def _prefix(text: str) -> str:
    Prefix(text)
    return text


def _has_places(of: type[NamespacePattern | Prefix], text: str) -> bool:
    try:
        return of(text).has_places
    except ValueError:
        return False


Text = Annotated[str, Field(max_length=TEXT_LENGTH)]
Principals = Annotated[list[Annotated[Text, AfterValidator(_principal)]], Field(min_length=1, max_length=TEXTS)]
Namespaces = Annotated[list[Annotated[Text, AfterValidator(_namespace)]], Field(min_length=1, max_length=TEXTS)]
Prefixes = Annotated[list[Annotated[Text, AfterValidator(_prefix)]], Field(min_length=1, max_length=TEXTS)]


class Rule(Table):
    """One of the `[[rules]]`."""

    principals: Principals
    namespaces: Namespaces
    prefixes: Prefixes = Field(default=[""])
    allow: Annotated[list[Literal["read", "write", "admin"]], Field(min_length=1, max_length=len(ACCESS))]

    @classmethod
    def unfit(cls, said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        prefixes = texts(said["prefixes"]) if "prefixes" in said else [""]
        if "admin" in texts(said.get("allow")) and "" not in prefixes:
            yield "allow", "admin is of the whole namespace, so prefixes must be left away or have '' in it"
        if ANONYMOUS in texts(said.get("principals")) and (
            any(_has_places(NamespacePattern, text) for text in texts(said.get("namespaces")))
            or any(_has_places(Prefix, text) for text in prefixes)
        ):
            yield "principals", f"{ANONYMOUS!r} has no name for the {{principal}} of the rule"


class Document(Table):
    """The file."""

    rules: Annotated[list[Rule], Field(max_length=RULES)] = Field(default=[])
    limits: Annotated[list[LimitsTable], Field(max_length=RULES)] = Field(default=[])


class Grant(NamedTuple):
    """What one rule allows one principal."""

    rule: int
    """Its number in the file, from 1."""
    namespaces: Names
    """Those in which it does."""
    access: Access
    prefixes: tuple[str, ...]


class Policy:
    """What a file says. A principal is empty for nobody in particular.

    Args:
        document: the file.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.limits = document.limits
        self.shadows = tuple(shadows(document.limits))  # here, since a policy is made apart from the event loop
        self._rules = [_Rule(number, rule) for number, rule in enumerate(document.rules, 1)]
        self.knows_anonymous = any(rule.knows_anonymous for rule in self._rules)
        """Whether a rule holds for nobody in particular."""
        self._heads = Heads(rule.heads() for rule in self._rules)
        # Remembered by each policy for itself: it goes with the policy.
        self._matching = lru_cache(PRINCIPALS)(self._match)
        self._granted = lru_cache(GRANTED)(self._find)
        self._rights_of = lru_cache(GRANTED)(_rights)
        self._rights = lru_cache(REMEMBERED)(lambda *asked: self._rights_of(tuple(self.grants(*asked))))

    def rights(self, principal: str, namespace: str) -> Rights:
        """What a principal may do in a namespace."""
        return self._rights(principal, namespace)

    def administers(self, principal: str) -> bool:
        """Whether one rule allows a principal ADMIN of every namespace: with the pattern `*`."""
        return any(ADMIN in grant.access and grant.namespaces.are_all for grant in self._granted(principal).values())

    def grants(self, principal: str, namespace: str) -> Iterator[Grant]:
        """What each rule allows a principal in a namespace, in the order of the file."""
        if namespace:
            granted = self._granted(principal)
            # Only rules that may be of the namespace are asked: who lists namespaces asks of all that there are.
            for place in _places(self._matching(principal) & self._heads.of(namespace)):
                grant = granted.get(place)
                if grant is not None and namespace in grant.namespaces:
                    yield grant

    def _find(self, principal: str) -> dict[int, Grant]:
        """By the place of the rule."""
        rules = ((place, self._rules[place]) for place in _places(self._matching(principal)))
        return {place: grant for place, rule in rules if (grant := rule.grant(principal)) is not None}

    def _match(self, principal: str) -> int:
        """The rules that are of a principal: a bit for each, so that many principals take up little memory."""
        return sum(1 << place for place, rule in enumerate(self._rules) if rule.is_of(principal))


class _Rule:
    """A rule, made ready to be asked."""

    def __init__(self, number: int, rule: Rule) -> None:
        self._number = number
        self._principals = Names(without_classes(text) for text in rule.principals if text != ANONYMOUS)
        self._namespaces = [NamespacePattern(text) for text in rule.namespaces]
        self._prefixes = [Prefix(text) for text in rule.prefixes]
        self._access = Access(0)
        for each in rule.allow:
            self._access |= ACCESS[each]
        self.knows_anonymous = ANONYMOUS in rule.principals
        texts: list[NamespacePattern | Prefix] = [*self._namespaces, *self._prefixes]
        self._shared = None if any(text.has_places for text in texts) else self._grant("")

    def is_of(self, principal: str) -> bool:
        """Whether it holds for a principal."""
        return principal in self._principals if principal else self.knows_anonymous

    def heads(self) -> set[str]:
        """What the namespaces begin with in which it holds."""
        return {each.head for each in self._namespaces}

    def grant(self, principal: str) -> Grant | None:
        """What it allows a principal that it holds for, if anything: all of them the same, if their names are not in
        it."""
        return self._shared or self._grant(principal)

    def _grant(self, principal: str) -> Grant | None:
        namespaces = [text for each in self._namespaces if (text := each.of(principal)) is not None]
        prefixes = tuple(text for each in self._prefixes if (text := each.of(principal)) is not None)
        return Grant(self._number, Names(namespaces), self._access, prefixes) if namespaces and prefixes else None


def _places(bits: int) -> Iterator[int]:
    """Where a number has bits, from the lowest on."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _rights(grants: tuple[Grant, ...]) -> Rights:
    if not grants:
        return NOTHING
    rights = Rights(
        read=[prefix for grant in grants if READ in grant.access for prefix in grant.prefixes],
        write=[prefix for grant in grants if WRITE in grant.access for prefix in grant.prefixes],
        admin=any(ADMIN in grant.access for grant in grants),
    )
    return EVERYTHING if rights.may(ANY, "") else rights


def watched(path: Path) -> Watched[Policy]:
    """The policy of a file, as it changes. Raises PolicyError or another FileError."""
    return Watched("policy", [path], lambda contents: parse(contents[0], str(path)))


def parse(content: bytes, name: str) -> Policy:
    """The policy in the content of a file of that name. Raises PolicyError."""
    if len(content) > FILE_BYTES:
        raise PolicyError(f"{name}: is larger than {FILE_BYTES} bytes")
    try:
        return Policy(Document.model_validate(tomllib.loads(content.decode("utf-8-sig"))))
    except UnicodeDecodeError:
        raise PolicyError(f"{name}: is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise PolicyError(f"{name}: is not TOML: {error}") from None
    except ValidationError as error:
        raise PolicyError(*(f"{name}: {_explain(each)}" for each in error.errors())) from None


def _explain(error: ErrorDetails) -> str:
    """What is wrong where, in other words than those for programmers."""
    match error["type"]:
        case "extra_forbidden":
            wrong = "is nothing that a policy has"
        case "missing":
            wrong = "is required"
        case "model_type":
            wrong = "is not a table: write [[rules]] or [[limits]] before each"
        case "list_type":
            wrong = "is not a list"
        case "string_type":
            wrong = "is not text"
        case "too_short" | "string_too_short":
            wrong = "must not be empty"
        case "too_long" | "string_too_long":
            wrong = f"is longer than {error['ctx']['max_length']}"
        case "literal_error":
            wrong = f"is not {error['ctx']['expected']}"
        case "value_error":
            wrong = error["msg"].removeprefix("Value error, ")
        case _:
            wrong = error["msg"].replace("Input should", "should")
    between = ": " if error["type"] == "value_error" else " "
    return _place(error["loc"]) + between + wrong


def _place(path: tuple[int | str, ...]) -> str:
    """As `rule 2, prefixes[0]`. Rules have numbers, which count from 1."""
    if len(path) > 1 and isinstance(path[1], int):
        place = f"{str(path[0]).removesuffix('s')} {path[1] + 1}"
        path = path[2:]
    else:
        place = ""
    for part in path:
        place += f"[{part}]" if isinstance(part, int) else f"{', ' if place else ''}{part!r:.100}".replace("'", "")
    return place
