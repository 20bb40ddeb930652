"""`comity transact`: several changes at once, or none of them."""

import json
from typing import IO, TYPE_CHECKING, Any

import click

from . import shapes
from .document import Document, read
from .failures import CONFLICT
from .options import Options, client_options, examples, guard_of, guard_option, write_options
from .render import Output
from .session import run
from .values import inline

if TYPE_CHECKING:
    from comity import model
    from comity.client import Client
    from comity.operations import Operation
    from comity.request_ids import RequestId

__all__ = ["transact"]


@click.command(
    short_help="Apply several changes at once, or none.",
    epilog=examples(
        "comity transact move.json",
        "comity transact - <<'END'",
        '{"conditions": [{"key": "budget", "version": 3, "operator": ">="},',
        '                {"key": "lock", "exists": false},',
        '                {"prefix": "agents/", "unchanged_since": 41}],',
        ' "then":       [{"increment": {"key": "budget", "delta": -10}},',
        '                {"put": {"key": "lock", "value": {"by": "planner"}}},',
        '                {"put": {"key": "note", "value": "hi", "content_type": "text/plain"}},',
        '                {"put": {"key": "blob", "value": {"base64": "AAEC"}}},',
        '                {"delete": {"prefix": "drafts/"}},',
        '                {"get": {"key": "plan"}},',
        '                {"list": {"prefix": "agents/", "limit": 10, "keys_only": true}}],',
        ' "otherwise":  [{"get": {"key": "budget"}}]}',
        "END",
    ),
)
@click.argument("file", type=click.File("rb"), default="-")
@guard_option
@write_options
@client_options
def transact(
    options: Options, file: IO[bytes], guard: int | None, message: str, request_id: "RequestId | None"
) -> None:
    """Apply the transaction that FILE (or standard input) describes: all of it, or nothing.

    FILE has one JSON object: "conditions" that must hold, what to do "then", and what to do "otherwise". All are lists
    as comity.v1.TransactRequest has them, and may be left out; its other fields are options of this command.

    \b
    A condition has a "key" or a "prefix", one test, and perhaps an "operator":
      "exists": true|false
      "version", "mod_revision", "create_revision", "lease_id": NUMBER
      "value": VALUE (compared by its bytes; of an absent key never true)
      "unchanged_since": REVISION (the only test of a prefix)
      "operator": "==" (default) "!=" "<" "<=" ">" ">=", or its name in the protos
    An operation is one of "get", "list", "put", "delete", "increment" (which needs its "delta").
    A VALUE is stored as JSON, without white space; {"base64": "..."} stands for bytes, a
    string with a "content_type" such as text/plain for text. A "put" may have a "lease_id", or a
    "ttl" in seconds.

    If the conditions hold, what was done is printed. If not, what was found instead, and the exit code is 3.
    """
    try:
        document = read(file.read())
    except ValueError as error:
        raise click.BadParameter(f"{error}", click.get_current_context(), param_hint="FILE") from error

    async def work(client: "Client") -> int:
        from comity.operations import List

        result = await client.transact(
            conditions=document.conditions,
            then=document.then,
            otherwise=document.otherwise,
            guard=guard_of(guard),
            message=message,
            request_id=request_id,
        )
        output = Output(as_json=options.json)
        applied = document.then if result.committed else document.otherwise
        done = list(zip(applied, result.results, strict=True))
        if output.json:
            output.object(
                {
                    "committed": result.committed,
                    "revision": result.revision,
                    "results": [
                        shapes.operation_result(answer, keys_only=isinstance(operation, List) and operation.keys_only)
                        for operation, answer in done
                    ],
                    "failed": [shapes.failed(each) for each in result.failed],
                }
            )
        else:
            _show(output, document, result)
            for operation, answer in done:
                for line in _answer(operation, answer):
                    output.line(line)
        return 0 if result.committed else CONFLICT

    run(options, work)


def _show(output: Output, document: Document, result: "model.TransactionResult") -> None:
    if result.committed:
        output.fields([("committed", "green"), (f"revision {result.revision}", "")])
    else:
        output.fields([("not committed", "red"), (f"revision {result.revision}", "")])
    for failed in result.failed:
        stated = document.stated[failed.index]
        output.line(
            f"conditions[{failed.index}] {json.dumps(stated, ensure_ascii=False)}: found {_found(failed, stated)}"
        )


def _found(failed: "model.FailedCondition", stated: dict[str, Any]) -> str:
    changed = f"changed by revision {failed.changed_revision}"
    if "prefix" in stated:
        return changed
    if failed.current is None:
        return f"no such key, {changed}" if failed.changed_revision else "no such key"
    current = failed.current
    text = f"version {current.version}, revision {current.mod_revision}, value "
    return text + ("omitted" if failed.value_omitted else inline(current))


def _answer(operation: "Operation", answer: "model.OperationResult") -> list[str]:
    from comity import model, operations

    match operation, answer:
        case operations.Get(key), model.GetResult(entry):
            return [f"get {key}: {'no such key' if entry is None else inline(entry)}"]
        case operations.List(prefix, _, keys_only), model.ListResult(entries, more):
            count = f"{len(entries)}{' and more' if more else ''}"
            return [
                f"list {prefix}*: {count}",
                *(f"    {entry.key}" + ("" if keys_only else f"  {inline(entry)}") for entry in entries),
            ]
        case operations.Put(key), model.PutResult(_, version, previous):
            was = "" if previous is None else f", was {inline(previous)}"
            return [f"put {key}: version {version}{was}"]
        case operations.Delete(), model.DeleteResult():
            what = operation.key if operation.key is not None else f"{operation.prefix}*"
            return [
                f"delete {what}: {answer.deleted}",
                *(f"    {entry.key}  {inline(entry)}" for entry in answer.previous),
                *(["    and more, left out for their size"] if answer.previous_truncated else []),
            ]
        case operations.Increment(key), model.IncrementResult(_, value, version):
            return [f"increment {key}: {value}, version {version}"]
        case _:
            raise TypeError(f"the server answered {operation} with {answer}")
