"""`comity serve`, `token`, `policy`, `backup`, `check`, `copy` and `health`: the server itself."""

import importlib
from typing import TYPE_CHECKING

import click

from .failures import UNAVAILABLE, Failure
from .needs import SERVER_NEEDS
from .options import TEXT, Options, client_options, examples
from .render import Output
from .session import run

if TYPE_CHECKING:
    from comity.access import Access
    from comity.client import Client

__all__ = ["backup", "check", "copy", "health", "policy", "serve", "token"]


def _of_server(name: str, module: str, attribute: str, short_help: str) -> click.Command:
    """A command whose options, help and imports are the server's own: the click command `attribute` of its `module`."""

    @click.command(
        name,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
        short_help=short_help,
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def made(ctx: click.Context, arguments: tuple[str, ...]) -> None:
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise Failure(f"{SERVER_NEEDS} ({error})") from error
        with command.make_context(name, list(arguments), parent=ctx.parent) as context:
            command.invoke(context)

    return made


serve = _of_server("serve", "comity_server.serve", "command", "Run the server.")
backup = _of_server(
    "backup", "comity_server.maintenance", "backup", "Copy the file of a store, also while a server uses it."
)
check = _of_server("check", "comity_server.maintenance", "check", "Verify the file of a store.")
token = _of_server("token", "comity_server.access.token_commands", "command", "Make bearer tokens.")
copy = _of_server("copy", "comity_server.copying", "command", "Copy namespaces from one store to another.")
policy = _of_server("policy", "comity_server.access.checking", "command", "Look into a policy file.")


@click.command(
    short_help="Ask whether the server serves.",
    epilog=examples(
        "comity health",
        "comity health comity.v1.StateService",
        "comity health --liveness --timeout 2",
        "until comity health; do sleep 1; done",
    ),
)
@click.argument("service", default="", type=TEXT)
@click.option("--readiness", "of", flag_value="readiness", help="Whether it is to be sent requests. The default.")
@click.option("--liveness", "of", flag_value="liveness", help="Whether its process answers, and no more.")
@client_options
def health(options: Options, service: str, of: str | None) -> None:
    """Ask the server whether it serves, once: exit with 0 if it says SERVING, else with 5.

    SERVICE is the full name of a gRPC service (exit with 4 if the server does not know it); without it the server as a
    whole is meant.
    """
    if of is not None and service:
        raise click.UsageError(f"give either SERVICE or --{of}", click.get_current_context())
    service = of or service

    async def work(_: "Client") -> int:
        status = await _check(options.access(), service, options.timeout)
        output = Output(as_json=options.json)
        if output.json:
            output.object({"status": status})
        else:
            output.fields([(status, "green" if status == "SERVING" else "red")])
        return 0 if status == "SERVING" else UNAVAILABLE

    run(options, work)


async def _check(access: "Access", service: str, timeout: float) -> str:
    """The name of the service's status. Each address is asked once, in an even part of the time that is left: who asks
    again is the caller's to say."""
    import asyncio

    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

    from comity.addresses import targets
    from comity.calls import Calls
    from comity.channel import Channels
    from comity.errors import DeadlineExceeded, NotFound, Unavailable

    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout
    channels = Channels(access)
    request = HealthCheckRequest(service=service).SerializeToString()
    try:
        for left in reversed(range(len(targets(access.address)))):
            seconds = max(0.0, deadline - clock()) / (left + 1)
            try:
                answer = await Calls(channels).attempt(lambda to: to.health, request, seconds)
            except (Unavailable, DeadlineExceeded):
                if not left:
                    raise
            except NotFound as error:
                raise Failure(f"the server has no service {service!r}", "NOT_FOUND") from error
            else:
                break
    finally:
        await channels.close()
    return HealthCheckResponse.ServingStatus.Name(HealthCheckResponse.FromString(answer).status)
