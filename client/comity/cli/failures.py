"""How a command fails: its exit code, and one line on standard error (or with --json, one object)."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .render import escape, plain_json

if TYPE_CHECKING:
    from comity.errors import ComityError

__all__ = ["CONFLICT", "INTERRUPTED", "UNAVAILABLE", "Failure", "failure", "report"]

FAILED = 1
USAGE = 2
CONFLICT = 3  # or a failed condition
NOT_FOUND = 4
UNAVAILABLE = 5  # or the time was up
INTERRUPTED = 130  # what shells use: 128 + SIGINT

EXIT_CODES = {
    "INVALID_ARGUMENT": USAGE,
    "ABORTED": CONFLICT,
    "ALREADY_EXISTS": CONFLICT,
    "NOT_FOUND": NOT_FOUND,
    "UNAVAILABLE": UNAVAILABLE,
    "DEADLINE_EXCEEDED": UNAVAILABLE,
}
OF_REASONS = {
    "LEASE_LOST": CONFLICT,  # as where a guard does not hold
}
# What a call has not shown, and how a command is told of it.
MISSING = {
    "bearer token": "--token-file or COMITY_TOKEN_FILE",
    "client certificate": "--tls-client-cert and --tls-client-key, or COMITY_TLS_CLIENT_CERT and COMITY_TLS_CLIENT_KEY",
}


class Failure(click.ClickException):
    """A command could not do what it was asked to. The exit code follows from the reason or the gRPC code."""

    def __init__(
        self,
        message: str,
        code: str = "UNKNOWN",
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[tuple[str, str]] = (),
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.request_id = request_id
        self.status = OF_REASONS.get(reason) or EXIT_CODES.get(code, FAILED)


def failure(error: "ComityError") -> Failure:
    """The failure for an error of the client."""
    hint = ""
    if error.reason == "UNAUTHENTICATED" and error.metadata.get("problem") == "missing":
        hint = next((f" ({flags})" for what, flags in MISSING.items() if what in error.message), "")
    return Failure(
        error.message + hint,
        error.code.name,
        reason=error.reason,
        metadata=error.metadata,
        violations=error.violations,
        request_id=error.request_id,
    )


def report(error: click.ClickException, *, as_json: bool) -> int:
    """Write the error to standard error, and return the exit code."""
    found = error if isinstance(error, Failure) else _of_click(error)
    if as_json:
        line: dict[str, Any] = {
            "code": found.code,
            "reason": found.reason,
            "message": found.message,
            "metadata": found.metadata,
        }
        if found.violations:
            line["violations"] = [{"field": field, "description": text} for field, text in found.violations]
        if found.request_id:
            line["request_id"] = found.request_id
        text = plain_json(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
    else:
        parts = [found.message, *(f"{field}: {text}" for field, text in found.violations if text not in found.message)]
        text = escape("comity: " + "; ".join(parts))
    print(text, file=sys.stderr)
    return found.status


def _of_click(error: click.ClickException) -> Failure:
    message = error.format_message()
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else "comity"
        message = message.rstrip(".") + _argument(error, path)
        return Failure(f"{message} (see {path} --help)", "INVALID_ARGUMENT", reason="USAGE")
    wrapped = Failure(message)
    wrapped.status = error.exit_code
    return wrapped


def _argument(error: click.UsageError, path: str) -> str:
    """What to write instead of an option that is an argument, if it is one."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return ""
    name = error.option_name.lstrip("-")
    if any(isinstance(param, click.Argument) and param.name == name for param in error.ctx.command.params):
        return f": it is an argument, {path} {name.upper()}"
    return ""
