"""The options that every client command has, and the types of arguments."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

__all__ = [
    "COUNT",
    "LEASE",
    "NUMBER",
    "REF",
    "REQUEST_ID",
    "REVISION",
    "SECONDS",
    "TEXT",
    "Options",
    "client_options",
    "confirm",
    "examples",
    "guard_of",
    "guard_option",
    "label_option",
    "one_target",
    "write_options",
]

if TYPE_CHECKING:
    IntType = click.ParamType[int]
    StrType = click.ParamType[str]
    RefType = click.ParamType[str | int]
    FloatType = click.ParamType[float]
    LabelType = click.ParamType[tuple[str, str]]
    from comity.access import Access
    from comity.leases.guard import LeaseGuard
    from comity.request_ids import RequestId

    RequestIdType = click.ParamType[RequestId]
else:  # of older releases of click these take no parameter
    IntType = FloatType = StrType = RefType = LabelType = RequestIdType = click.ParamType

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Options:
    """What the common options say."""

    address: str
    namespace: str
    author: str
    json: bool
    timeout: float
    variables: Mapping[str, str]  # what the others would be as variables of the environment

    def access(self) -> "Access":
        """How the server is reached. Raises click's UsageError."""
        from comity.access import access

        try:
            return access(self.address, variables=os.environ | self.variables)
        except ValueError as error:
            raise click.UsageError(str(error), click.get_current_context()) from error


class _Number(IntType):
    """A number of 64 bits. click's IntRange would fill the help with its bounds.

    below: what to say of a lower number, instead of the bounds.
    """

    name = "number"

    def __init__(self, least: int, below: str = "") -> None:
        self._least = least
        self._below = below

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if self._below and number < self._least:
            self.fail(self._below, param, ctx)
        if not self._least <= number < 2**63:
            self.fail(f"{value} is not from {self._least} to 2^63-1", param, ctx)
        return number


class _Seconds(FloatType):
    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from comity.leases.ttl import MOST_SECONDS

        try:
            seconds = float(value)
        except ValueError:
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        if not seconds > 0:  # nor is NaN
            self.fail(f"{seconds:g} is no number of seconds above 0", param, ctx)
        if seconds > MOST_SECONDS:
            self.fail(f"it is at most {MOST_SECONDS:.0f} seconds", param, ctx)
        return seconds


class _Text(StrType):
    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail("it is not UTF-8", param, ctx)
        return str(value)


class _Ref(RefType):
    """A revision by its number, or the name of a checkpoint, which has more than digits."""

    name = "ref"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        text = TEXT.convert(value, param, ctx)
        if not text:
            self.fail("it is empty", param, ctx)
        return NUMBER.convert(text, param, ctx) if text.isascii() and text.isdigit() else text


class _Label(LabelType):
    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, text = TEXT.convert(value, param, ctx).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return name, text


class _RequestId(RequestIdType):
    name = "name[:sequence]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "RequestId":
        from comity.request_ids import RequestId

        if isinstance(value, RequestId):
            return value
        text = TEXT.convert(value, param, ctx)
        name, colon, sequence = text.rpartition(":")
        if not (colon and sequence.isascii() and sequence.isdigit()):
            name, sequence = text, "1"
        if not name:
            self.fail(f"{text!r} has no name", param, ctx)
        if len(sequence) > 19 or not 0 < int(sequence) < 2**63:
            self.fail("a sequence is a number from 1 to 2^63-1", param, ctx)
        return RequestId(name, int(sequence))


NUMBER = _Number(0)  # a version, or a revision to keep or compare with, where 0 is before everything
REVISION = _Number(1, "revisions begin with 1")  # to read: to the server a 0 is none said, which is the newest
COUNT = _Number(1)
LEASE = _Number(1, "the ids of leases begin with 1")
SECONDS = _Seconds()
TEXT = _Text()
REF = _Ref()
LABEL = _Label()
REQUEST_ID = _RequestId()


def _variable(name: str) -> str:
    """As click shows those that it reads itself; what a flag of one of these means for the others, it cannot know."""
    return f"[env var: {name}]"


_COMMON = (
    click.option(
        "--address",
        metavar="HOST:PORT[,HOST:PORT]",
        envvar="COMITY_ADDRESS",
        default="127.0.0.1:7171",
        help="The server; of several the first that answers.",
        show_default=True,
        show_envvar=True,
    ),
    click.option(
        "--namespace",
        metavar="NAME",
        type=TEXT,
        envvar="COMITY_NAMESPACE",
        default="default",
        help="The key space to work in.",
        show_default=True,
        show_envvar=True,
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the names of the protos."),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=5.0,
        help="How long a call may take, retries included.",
        show_default=True,
    ),
    click.option("--tls/--no-tls", default=None, help=f"Connect by TLS, or in plain text.  {_variable('COMITY_TLS')}"),
    click.option(
        "--tls-ca",
        metavar="PATH",
        help="The certificates that may have signed the server's, PEM; else public authorities."
        f"  {_variable('COMITY_TLS_CA')}",
    ),
    click.option(
        "--tls-client-cert",
        metavar="PATH",
        help=f"The certificate to show, PEM.  {_variable('COMITY_TLS_CLIENT_CERT')}",
    ),
    click.option(
        "--tls-client-key", metavar="PATH", help=f"Its private key, PEM.  {_variable('COMITY_TLS_CLIENT_KEY')}"
    ),
    click.option(
        "--tls-server-name",
        metavar="NAME",
        help=f"That the server's certificate is for, instead of its host.  {_variable('COMITY_TLS_SERVER_NAME')}",
    ),
    click.option(
        "--token-file",
        metavar="PATH",
        help="Where the token is, by which the server knows who calls.  [env var: COMITY_TOKEN_FILE, COMITY_TOKEN]",
    ),
)
_FILES = ("tls_ca", "tls_client_cert", "tls_client_key", "tls_server_name", "token_file")
_AUTHOR = click.option(
    "--author",
    metavar="NAME",
    type=TEXT,
    envvar="COMITY_AUTHOR",
    default="",
    help="Who writes, for the history.",
    show_envvar=True,
)
_WRITE = (
    click.option("--message", metavar="TEXT", type=TEXT, default="", help="Why, for the history."),
    click.option(
        "--request-id",
        metavar="NAME[:SEQUENCE]",
        type=REQUEST_ID,
        help="A repeat with the same id is not applied again, and answers as the first did. SEQUENCE: 1 unless said.",
    ),
)


def client_options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the common options, as its first argument `options`, but for an --author of its own."""
    own_author = "author" in inspect.signature(function).parameters

    @functools.wraps(function)
    def with_options(
        *, address: str, namespace: str, author: str, as_json: bool, timeout: float, **others: Any
    ) -> None:
        variables = _variables(others.pop("tls"), {name: others.pop(name) for name in _FILES})
        if own_author:
            others["author"] = author
        function(Options(address, namespace, "" if own_author else author, as_json, timeout, variables), **others)

    made: Callable[..., None] = with_options
    for option in reversed(_COMMON if own_author else (*_COMMON[:2], _AUTHOR, *_COMMON[2:])):
        made = option(made)
    return made


def _variables(tls: bool | None, files: Mapping[str, str | None]) -> Mapping[str, str]:
    """What flags say, as variables that win over those of the environment. Raises click's UsageError."""
    said = {}
    for name, value in files.items():
        if value == "":  # as of a variable of the shell that is not set: it must not mean to do without
            raise click.UsageError(f"--{name.replace('_', '-')} is empty", click.get_current_context())
        if value is not None:
            said[f"COMITY_{name.upper()}"] = value
    if tls is not None or said.keys() - {"COMITY_TOKEN_FILE"}:
        said["COMITY_TLS"] = "0" if tls is False else "1"
    if "COMITY_TOKEN_FILE" in said:
        said["COMITY_TOKEN"] = ""
    return said


def write_options(function: Function) -> Function:
    """Gives a command --message and --request-id."""
    for option in reversed(_WRITE):
        function = option(function)
    return function


def guard_option(function: Function) -> Function:
    """Gives a command --guard, as its argument `guard`."""
    text = "Only while this lease lives, such as $COMITY_FENCE."
    return click.option("--guard", type=LEASE, metavar="LEASE", help=text)(function)


def guard_of(lease_id: int | None) -> "LeaseGuard | None":
    """What --guard says to the client. The fence of a lease is its id."""
    from comity.leases.guard import LeaseGuard

    return None if lease_id is None else LeaseGuard(lease_id, lease_id)


def label_option(text: str) -> Callable[[Function], Function]:
    """Gives a command --label, which may be repeated, as its argument `labels`: a dict."""
    return click.option(
        "--label", "labels", type=LABEL, multiple=True, metavar="KEY=VALUE", callback=_distinct, help=text
    )


def _distinct(ctx: click.Context, param: click.Parameter, labels: tuple[tuple[str, str], ...]) -> dict[str, str]:
    made = dict(labels)
    if len(made) < len(labels):
        raise click.BadParameter("a key is given twice", ctx, param)
    return made


def examples(*lines: str) -> str:
    """The end of a command's help: examples, a line each."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def one_target(key: str | None, prefix: str | None) -> None:
    """Refuse a command that names no target, or two."""
    if (key is None) == (prefix is None):
        raise click.UsageError("Give either KEY or --prefix PREFIX", click.get_current_context())


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is deleted, unless --yes was given. Refuses where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("--delete needs --yes where nobody can be asked", click.get_current_context())
    click.confirm(question, abort=True, err=True)
