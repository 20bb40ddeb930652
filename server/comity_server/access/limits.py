"""What one principal, or one namespace, may take up: as the settings say, or a table `[[limits]]` of the policy file.

For each figure the first table holds that has the figure, and whose pattern matches; where none has, the settings do.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, Field

from comity_server.access import tables
from comity_server.access.buckets import Rate
from comity_server.access.patterns import PLACEHOLDER, WILDCARDS, Names, NamespacePattern, without_classes
from comity_server.limits import MOST, UNBOUNDED, Limits, Retention, Share
from comity_server.names import ANONYMOUS

TEXTS: Final = 1000  # patterns of a table
TEXT_LENGTH: Final = 1024
REMEMBERED: Final = 4096  # names, which callers choose


def _without_place(text: str) -> str:
    if PLACEHOLDER in text:
        raise ValueError(f"must not have {PLACEHOLDER} in it: each that matches has all of a limit for itself")
    return text


def _namespace(text: str) -> str:
    NamespacePattern(_without_place(text))
    return text


_Text = Annotated[str, Field(min_length=1, max_length=TEXT_LENGTH)]
_Principals = Annotated[list[Annotated[_Text, AfterValidator(_without_place)]], Field(min_length=1, max_length=TEXTS)]
_Namespaces = Annotated[list[Annotated[_Text, AfterValidator(_namespace)]], Field(min_length=1, max_length=TEXTS)]
_Amount = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=MOST)]
_Positive = Annotated[int, Field(ge=1, le=MOST)]

_OF_PRINCIPALS: Final = ("max_principal_calls", "max_principal_streams")
_LIMITS: Final = {
    "keys": "namespace_keys",
    "bytes": "namespace_bytes",
    "leases": "leases",
    "checkpoints": "checkpoints",
    "count": "share",
}
_RETENTION: Final = {"history_commits": "commits", "history_age": "age", "history_bytes": "history_bytes"}
_OF_NAMESPACES: Final = (*_LIMITS, *_RETENTION)


class Table(tables.Table):
    """One of the `[[limits]]`: of each principal, or of each namespace, that a pattern matches."""

    principals: _Principals | None = None
    namespaces: _Namespaces | None = None
    rate: _Amount | None = None
    burst: _Amount | None = None
    rate_bytes: _Amount | None = None
    burst_bytes: _Amount | None = None
    max_principal_calls: _Count | None = None
    max_principal_streams: _Count | None = None
    keys: _Positive | None = None
    bytes: _Positive | None = None
    leases: _Count | None = None
    checkpoints: _Count | None = None
    count: _Positive | None = None
    history_commits: _Count | None = None
    history_age: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None
    history_bytes: _Count | None = None

    @classmethod
    def unfit(cls, said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        of_principals, of_namespaces = "principals" in said, "namespaces" in said
        if of_principals == of_namespaces:
            yield "principals", "a table has either principals or namespaces"
        else:
            others, of = (_OF_NAMESPACES, "namespaces") if of_principals else (_OF_PRINCIPALS, "principals")
            yield from ((name, f"is a limit of {of}") for name in others if name in said)
        for burst, rate in (("burst", "rate"), ("burst_bytes", "rate_bytes")):
            if burst in said and not said.get(rate):
                yield burst, f"needs a {rate} above 0"
        if "count" in said:
            for pattern in tables.texts(said.get("namespaces")):
                if not pattern.endswith("*") or any(wildcard in pattern[:-1] for wildcard in WILDCARDS):
                    yield "count", f"{pattern!r} is no beginning of names with a '*' after it, as counts need"
        if said and said.keys() <= {"principals", "namespaces"}:
            yield ("principals" if of_principals else "namespaces"), "the table has no limit for them"

    def figures(self) -> dict[str, Any]:
        """What it says, by name; of a rate with its burst."""
        said: dict[str, Any] = {
            name: figure for name in (*_OF_PRINCIPALS, *_OF_NAMESPACES) if (figure := getattr(self, name)) is not None
        }
        if self.rate is not None:
            said["rate"] = rate(self.rate, self.burst or 0)
        if self.rate_bytes is not None:
            said["rate_bytes"] = rate(self.rate_bytes, self.burst_bytes or 0)
        return said


class Figure(NamedTuple):
    """What one table says of a principal or of a namespace."""

    of: str
    """Of which of the two."""
    name: str
    value: float
    limit: int
    """The table's number in the file, from 1."""


class Rates(NamedTuple):
    """Of operations, and of bytes. None: no bound."""

    operations: Rate | None = None
    bytes: Rate | None = None


class PrincipalLimits(NamedTuple):
    """What one principal may do at a time. 0 calls or streams: no bound."""

    rates: Rates = Rates()
    max_calls: int = 0
    max_streams: int = 0


def rate(per_second: float, burst: float) -> Rate | None:
    """The rate of two settings: 0 a second is no bound; a burst of 0 is what comes in one second, but at least 1."""
    return Rate(per_second, burst or max(per_second, 1.0)) if per_second else None


class NamespaceLimits(NamedTuple):
    """What there may be in one namespace, and how much may be done in it."""

    rates: Rates = Rates()
    limits: Limits = Limits()
    retention: Retention = Retention()


_PRINCIPAL: Final = PrincipalLimits()
_NAMESPACE: Final = NamespaceLimits()


class Rules:
    """Says what each may take up.

    Args:
        principal: what holds where no table says else.
        namespace: likewise.
        tables: those of the policy.
    """

    def __init__(
        self,
        principal: PrincipalLimits = _PRINCIPAL,
        namespace: NamespaceLimits = _NAMESPACE,
        tables: Sequence[Table] = (),
    ) -> None:
        self._principal = principal
        self._namespace = namespace
        self._of_principals = [_Entry(table.principals, table) for table in tables if table.principals is not None]
        self._of_namespaces = [_Entry(table.namespaces, table) for table in tables if table.namespaces is not None]
        of_all = (
            principal.rates,
            namespace.rates,
            *(entry.rates for entry in (*self._of_principals, *self._of_namespaces)),
        )
        self.has_rates = any(rates != Rates() for rates in of_all)
        """Whether there is a rate on anything."""
        # Remembered by each of its own: what is remembered goes with the rules.
        self._find_principal = lru_cache(REMEMBERED)(self._principal_anew)
        self._find_namespace = lru_cache(REMEMBERED)(self._namespace_anew)

    def with_tables(self, tables: Sequence[Table]) -> "Rules":
        """The same of another policy."""
        return Rules(self._principal, self._namespace, tables)

    def principal(self, name: str) -> PrincipalLimits:
        """Of a principal; empty: of each from whom it is nobody in particular."""
        return self._find_principal(name) if self._of_principals else self._principal

    def namespace(self, name: str) -> NamespaceLimits:
        """Of a namespace."""
        return self._find_namespace(name) if self._of_namespaces else self._namespace

    def _principal_anew(self, name: str) -> PrincipalLimits:
        said = _said(self._of_principals, name)
        default = self._principal
        return PrincipalLimits(
            _rates(said, default.rates),
            said.get("max_principal_calls", default.max_calls),
            said.get("max_principal_streams", default.max_streams),
        )

    def _namespace_anew(self, name: str) -> NamespaceLimits:
        said = _said(self._of_namespaces, name)
        default = self._namespace
        return NamespaceLimits(
            _rates(said, default.rates),
            default.limits._replace(**{field: said[name] for name, field in _LIMITS.items() if name in said}),
            default.retention._replace(
                **{field: said[name] or UNBOUNDED for name, field in _RETENTION.items() if name in said}
            ),
        )


def figures(tables: Sequence[Table], principal: str, namespace: str) -> Iterator[Figure]:
    """What the tables say of a principal (empty: nobody in particular), and of a namespace. Where two say the same, the
    first one holds."""
    for of, name in (("principal", principal), ("namespace", namespace)):
        known: set[str] = set()
        for number, table in enumerate(tables, 1):
            patterns = table.principals if of == "principal" else table.namespaces
            if patterns is None or not _Entry(patterns, table).is_of(name):
                continue
            said = table.model_dump(exclude_none=True, exclude={"principals", "namespaces"})
            said = {name: value for name, value in said.items() if name.replace("burst", "rate") not in known}
            known |= said.keys()
            for name_of_figure, value in said.items():
                yield Figure(of, name_of_figure, int(value) if value == int(value) else value, number)


class _Entry:
    """A table, made ready to be asked."""

    def __init__(self, patterns: Sequence[str], table: Table) -> None:
        named = [pattern for pattern in patterns if pattern != ANONYMOUS or table.principals is None]
        self._names = Names(map(without_classes, named))
        self._anonymous = len(named) < len(patterns)
        self.figures = table.figures()
        self._beginnings = [pattern[:-1] for pattern in patterns]
        self.rates = _rates(self.figures, Rates())

    def is_of(self, name: str) -> bool:
        return name in self._names if name else self._anonymous

    def said(self, name: str) -> dict[str, Any]:
        """The figures of a name that it is of: how many namespaces there may be goes by the pattern of that name."""
        if "count" not in self.figures:
            return self.figures
        beginning = next(each for each in self._beginnings if name.startswith(each))
        return {**self.figures, "count": Share(beginning, self.figures["count"])}


def _said(entries: Sequence[_Entry], name: str) -> dict[str, Any]:
    """Each figure of the first table that has it."""
    said: dict[str, Any] = {}
    for entry in reversed(entries):
        if entry.is_of(name):
            said |= entry.said(name)
    return said


def _rates(said: dict[str, Any], default: Rates) -> Rates:
    return Rates(said.get("rate", default.operations), said.get("rate_bytes", default.bytes))
