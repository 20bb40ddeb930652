"""`comity lease grant|keepalive|revoke|get|list`: what lives only while somebody keeps it alive."""

from typing import TYPE_CHECKING

import click

from . import shapes
from .options import LEASE, SECONDS, Options, client_options, examples, guard_of, guard_option, write_options
from .render import Output, counted
from .session import run

if TYPE_CHECKING:
    from comity import model
    from comity.client import Client
    from comity.leases.lease import Lease
    from comity.request_ids import RequestId

__all__ = ["lease"]


@click.group(
    short_help="Grant, keep alive, revoke and print leases.",
    epilog=examples(
        "comity lease grant 10",
        "comity put agents/a '{}' --lease 7",
        "comity lease keepalive 7",
        "comity lease list",
    ),
)
def lease() -> None:
    """Leases: what lives only while somebody keeps it alive.

    A lease lives for so many seconds after it was granted, and after each renewal. Keys that were put with it (comity
    put --lease ID) are deleted when it ends. Its id is also its fencing token: it is greater than that of every lease
    of the namespace before it.
    """


@lease.command(
    short_help="Make a lease.",
    epilog=examples(
        "comity lease grant 10",
        "comity lease grant 60 --keep-alive",
        "lease=$(comity lease grant 10 --json | jq .id)",
    ),
)
@click.argument("seconds", type=SECONDS)
@click.option("--keep-alive", is_flag=True, help="Keep it alive until interrupted, as `comity lease keepalive` does.")
@guard_option
@write_options
@client_options
def grant(
    options: Options,
    seconds: float,
    keep_alive: bool,
    guard: int | None,
    message: str,
    request_id: "RequestId | None",
) -> None:
    """Make a lease that lives for SECONDS after each renewal, and print its id."""

    async def work(client: "Client") -> None:
        made = await client.grant_lease(seconds, guard=guard_of(guard), message=message, request_id=request_id)
        output = Output(as_json=options.json)
        if output.json:
            output.object({"id": made.id, "ttl": made.ttl, "fence": made.fence})
        else:
            output.line(f"lease {made.id}: lives {made.ttl:g} s")
        if keep_alive:
            output.flush()
            await _keep(made)

    run(options, work, interrupted=0)


@lease.command(
    short_help="Keep a lease alive.",
    epilog=examples("comity lease keepalive 7", "comity lease keepalive 7 --once"),
)
@click.argument("id", type=LEASE)
@click.option("--once", is_flag=True, help="Renew it once, and print how many seconds it lives now.")
@client_options
def keepalive(options: Options, id: int, once: bool) -> None:
    """Keep the lease ID alive until interrupted, which is no failure: it then lives for as long as it has left.

    Exits with 4 if there is no such lease, and with 3 if it is lost meanwhile.
    """

    async def work(client: "Client") -> None:
        output = Output(as_json=options.json)
        if once:
            left = await client.renew_lease(id)
            if output.json:
                output.object({"lease_id": id, "ttl": left})
            else:
                output.line(f"lease {id}: lives {left:.1f} s")
            return
        kept = await client.keep_alive(id)
        if output.json:
            output.object({"lease_id": id, "ttl": kept.ttl})
        else:
            output.line(f"keeping lease {id} alive, which lives {kept.ttl:g} s")
        output.flush()
        await _keep(kept)

    run(options, work, interrupted=0)


async def _keep(kept: "Lease") -> None:
    """Return never: raise LeaseLost."""
    await kept.lost()
    kept.check()


@lease.command(
    short_help="End a lease.",
    epilog=examples("comity lease revoke 7", "comity lease revoke 7 --message 'agent a was stopped'"),
)
@click.argument("id", type=LEASE)
@guard_option
@write_options
@client_options
def revoke(options: Options, id: int, guard: int | None, message: str, request_id: "RequestId | None") -> None:
    """End the lease ID now, and delete its keys; exit with 4 if there is no such lease."""

    async def work(client: "Client") -> None:
        deleted = await client.revoke_lease(id, guard=guard_of(guard), message=message, request_id=request_id)
        output = Output(as_json=options.json)
        if output.json:
            output.object({"lease_id": id, "deleted": deleted})
        else:
            output.line(f"revoked lease {id}: {counted(deleted, 'key')} deleted")

    run(options, work)


@lease.command(short_help="Print a lease.", epilog=examples("comity lease get 7", "comity lease get 7 --json"))
@click.argument("id", type=LEASE)
@client_options
def get(options: Options, id: int) -> None:
    """Print what is known of the lease ID; exit with 4 if there is no such lease."""

    async def work(client: "Client") -> None:
        found = await client.get_lease(id)
        output = Output(as_json=options.json)
        if output.json:
            output.object(shapes.lease(found))
        else:
            output.properties(_properties(found, terminal=output.terminal))

    run(options, work)


@lease.command("list", short_help="Print the leases.", epilog=examples("comity lease list", "comity lease list --json"))
@client_options
def list_(options: Options) -> None:
    """Print the leases of the namespace in the order of their ids.

    A line each, with tabs between: the id, the seconds that are left, the ttl, the number of keys, the author.
    """

    async def work(client: "Client") -> None:
        output = Output(as_json=options.json)
        if output.json:
            async for found in client.list_leases():
                output.object(shapes.lease(found))
            return
        rows = [_row(found) async for found in client.list_leases()]
        if rows:
            header = ["id", "left", "ttl", "keys", "author"]
            output.table(header, rows, numbers=header[:4])

    run(options, work)


def _properties(found: "model.LeaseInfo", *, terminal: bool) -> dict[str, str]:
    at = found.expire_time
    expires = f"{at.astimezone():%Y-%m-%d %H:%M:%S}" if terminal else shapes.time(at)
    shown = {
        "id": str(found.id),
        "fence": str(found.fence),
        "ttl": f"{found.ttl:g} s",
        "remaining": f"{found.remaining:.1f} s",
        "expire_time": expires,
        "author": found.author,
        "key_count": str(found.key_count),
        "ends_with_keys": "true" if found.ends_with_keys else "false",
    }
    return {name: text for name, text in shown.items() if text}


def _row(found: "model.LeaseInfo") -> list[str]:
    return [str(found.id), f"{found.remaining:.1f}", f"{found.ttl:g}", str(found.key_count), found.author]
