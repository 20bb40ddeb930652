"""`comity policy check`: what is wrong with a policy file, and what it allows whom."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click

from comity_server.access.files import FileError, read
from comity_server.access.hints import hints
from comity_server.access.limits import Figure, figures
from comity_server.access.policy import ACCESS, Grant, Policy, PolicyError, parse
from comity_server.access.rights import ADMIN
from comity_server.failures import Failed
from comity_server.names import ANONYMOUS, NAMESPACE
from comity_server.words import counted

EXAMPLES = """\b
Examples:
  comity policy check policy.toml
  comity policy check policy.toml --principal planner --namespace research
  comity policy check policy.toml --principal planner --namespace research --key plans/1
  comity policy check policy.toml --principal anonymous --namespace research --prefix plans/"""


class Allowed(NamedTuple):
    """One line of an answer: an access to the keys under a prefix, or to what was asked for, and by which rules."""

    access: str
    prefix: str | None
    rules: list[int]


@click.group("policy", invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def command(ctx: click.Context) -> None:
    """Look into a policy file."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("check", short_help="Say what is wrong with a file, or what it allows.", epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--principal", metavar="NAME", help=f"Say what this one may do; {ANONYMOUS}: nobody in particular.")
@click.option("--namespace", metavar="NAME", help="In this namespace.")
@click.option("--key", metavar="KEY", help="To this key.")
@click.option("--prefix", metavar="PREFIX", help="To all keys under this prefix.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(
    file: Path, principal: str | None, namespace: str | None, key: str | None, prefix: str | None, as_json: bool
) -> None:
    """Say what is wrong with a policy file, or what it allows a principal in a namespace and by which of its rules, and
    which of its limits hold for them.

    Exits with 0 if the file is one that a server takes, with 1 and a line for each thing that is wrong if it is not,
    and with 4 if there is none.
    """
    if (principal is None) != (namespace is None):
        raise click.UsageError("--principal and --namespace go together")
    if principal is None and (key is not None or prefix is not None):
        raise click.UsageError("--key and --prefix need --principal and --namespace")
    if key is not None and prefix is not None:
        raise click.UsageError("--key and --prefix exclude each other")
    if principal == "":
        raise click.UsageError(f"--principal: must not be empty; {ANONYMOUS} is nobody in particular")
    if namespace is not None and not NAMESPACE.fullmatch(namespace):
        raise click.UsageError(f"--namespace: must match {NAMESPACE.pattern}")
    policy = _read(file, as_json)
    if principal is None or namespace is None:
        rules, limits, warnings = len(policy.document.rules), len(policy.limits), list(hints(policy))
        if as_json:
            click.echo(_json({"file": str(file), "rules": rules, "limits": limits, "warnings": warnings}))
        else:
            said = counted(rules, "rule") + (f" and {counted(limits, 'limit')}" if limits else "")
            click.echo("\n".join([f"{file}: {said}", *(f"{file}: warning: {each}" for each in warnings)]))
        return
    name = "" if principal == ANONYMOUS else principal
    grants = list(policy.grants(name, namespace))
    bounds = list(figures(policy.limits, name, namespace))
    target = key if key is not None else prefix
    allowed = list(_everything(grants) if target is None else _to(target, grants))
    if as_json:
        found = [{name: value for name, value in each._asdict().items() if value is not None} for each in allowed]
        limited = [each._asdict() for each in bounds]
        click.echo(_json({"principal": principal, "namespace": namespace, "allowed": found, "limits": limited}))
    else:
        click.echo("\n".join([*_lines(allowed), *(map(_limited, bounds) if target is None else ())]))


def _read(file: Path, as_json: bool) -> Policy:
    if not file.exists():
        raise Failed(f"{file}: there is no such file", 4)
    try:
        return parse(read(file), str(file))
    except PolicyError as error:
        if as_json:  # one object
            raise click.ClickException("; ".join(error.problems)) from None
        for problem in error.problems[:-1]:
            click.echo(f"comity: {problem}", err=True)
        raise click.ClickException(error.problems[-1]) from None
    except FileError as error:
        raise click.ClickException(str(error)) from None


def _everything(grants: Iterable[Grant]) -> Iterable[Allowed]:
    """All that is allowed, in the order of the rules."""
    for grant in grants:
        for name, access in ACCESS.items():
            if access not in grant.access:
                continue
            for prefix in [None] if access is ADMIN else grant.prefixes:
                yield Allowed(name, prefix, [grant.rule])


def _to(target: str, grants: list[Grant]) -> Iterable[Allowed]:
    """What is allowed to a key, or to all keys under a prefix. A rule allows all of it, or nothing."""
    for name, access in ACCESS.items():
        rules = [
            grant.rule
            for grant in grants
            if access in grant.access and (access is ADMIN or target.startswith(grant.prefixes))
        ]
        yield Allowed(name, None, rules)


def _lines(allowed: Iterable[Allowed]) -> Iterable[str]:
    lines = []
    for access, prefix, rules in allowed:
        what = access if prefix is None else f"{access} {prefix!r}" if prefix else f"{access} all keys"
        lines.append(f"{what}: " + (" and ".join(f"rule {rule}" for rule in rules) or "denied"))
    return lines or ["everything: denied"]


def _limited(figure: Figure) -> str:
    return f"{figure.name} of the {figure.of}: {figure.value}: limit {figure.limit}"


def _json(said: dict[str, Any]) -> str:
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))
