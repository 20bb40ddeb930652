"""What a server asks of a Redis before it serves: that it is new enough, of the form that the URL says, and keeps what
it acknowledges."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog
from redis.exceptions import NoPermissionError, ResponseError

from comity_server.errors import StateError, StoreUnavailable
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.connection import Connection
from comity_server.stores.redis.failures import Passing, is_of_user
from comity_server.stores.redis.primaries import TooFewReplicas

log = structlog.get_logger(__name__)

LEAST: Final = (6, 2)
SETTINGS: Final = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy")


async def check(client: Client, *, require_durable: bool) -> None:
    """Warn of everything that may lose an acknowledged write, or with `require_durable` refuse. Raises
    StoreUnavailable; errors as of `Client.call` too."""
    settings: list[Mapping[str, str] | None] = []  # of each primary; None: it does not tell
    for name in SETTINGS:
        found = await _everywhere(client, "CONFIG GET", name)
        settings += [None if told is None else _texts(told) for told in found]
    dangers = list(dict.fromkeys(_dangers(client, settings)))
    if dangers and require_durable:
        raise StoreUnavailable(
            f"Redis may lose what was acknowledged, and require_durable is set: {'; '.join(dangers)}"
        )
    for danger in dangers:
        log.warning("Redis may lose what was acknowledged", why=danger, redis=str(client.target))


async def look(client: Client) -> Collection[str]:
    """Find out whether it is a Redis that will do. Returns the ids of the servers that are its primaries, as far as
    they tell. Raises StoreUnavailable as `check_kind` does; errors as of `Client.call` too."""
    servers = [_texts(told or {}) for told in await _everywhere(client, "INFO", "server")]
    for told in servers:
        check_kind(client.target.form, told)
    return {told["run_id"] for told in servers if "run_id" in told}


async def try_writes(client: Client, *, require_durable: bool) -> None:
    """Find out whether the user may write, and wait for replicas. If Redis takes no writes for another reason, warn:
    that may pass, and meanwhile there is what can be read. But with `require_durable` it has to have its replicas.
    Raises StoreUnavailable; errors as of `Client.call` too."""
    if client.wait_replicas and None in await _everywhere(client, "WAIT", 0, 1):
        raise StoreUnavailable("Redis refuses the server's user the command WAIT, and redis_wait_replicas is set")
    try:
        await client.try_writes()
    except TooFewReplicas as error:
        if require_durable:
            raise StoreUnavailable(f"{error.message}, and require_durable is set") from None
        log.warning("Redis takes no writes", why=error.message, redis=str(client.target))
    except (StateError, Passing) as error:
        if is_of_user(error):
            raise
        log.warning("Redis takes no writes", why=str(error.__cause__ or error), redis=str(client.target))


def check_kind(form: str, told: Mapping[str, str]) -> None:
    """Raises StoreUnavailable if it is too old, or not of the form, by what INFO says."""
    version = told.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < LEAST:
        raise StoreUnavailable(f"Redis {version} is too old: 6.2 is the oldest that will do")
    if form != "cluster" and told.get("redis_mode") == "cluster":
        raise StoreUnavailable("this Redis is part of a Cluster: its URL begins with redis+cluster://")


def _dangers(client: Client, settings: Sequence[Mapping[str, str] | None]) -> Iterator[str]:
    for found in settings:
        if found is None:
            yield "it is not known how, for the server's user may not use CONFIG GET"
            continue
        if not found:  # as some that is hosted does
            yield "it is not known how, for CONFIG GET does not tell all"
        for name, value in found.items():
            match name, value:
                case "appendonly", "no":
                    yield "appendonly is no: a restart loses what came after the last snapshot"
                case "appendfsync", "everysec" | "no":
                    yield f"appendfsync is {value}, not always: a crash of the machine loses the last writes"
                case "no-appendfsync-on-rewrite", "yes":
                    yield "no-appendfsync-on-rewrite is yes: a crash of the machine may lose the last writes"
                case "maxmemory-policy", _ if value != "noeviction":
                    yield f"maxmemory-policy is {value}, not noeviction: keys are dropped where memory is short"
    if client.target.form != "single" and not client.wait_replicas:
        yield "redis_wait_replicas is 0: a failover loses what the replicas do not have yet"


async def _everywhere(client: Client, name: str, *arguments: str | int) -> Sequence[Any]:
    """What each primary answers, or None where the user may not ask."""

    async def ask(redis: Connection) -> Sequence[Any]:
        try:
            if client.target.form != "cluster":
                return [await redis.execute_command(name, *arguments)]
            await redis.initialize()
            nodes = redis.get_primaries()
            return [await redis.execute_command(name, *arguments, target_nodes=node) for node in nodes]
        except NoPermissionError:
            return [None]
        except ResponseError as error:
            said = str(error).lower()
            if "unknown command" in said and name.partition(" ")[0].lower() in said:  # as some that is hosted says
                return [None]
            if name == "WAIT" and "replica instances" in said:  # a failover is under way: the next write says so
                return [0]
            raise

    return await client.repeated(partial(client.once, ask))


def _texts(told: Mapping[Any, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in told.items()}


def _text(said: object) -> str:
    return said.decode() if isinstance(said, bytes) else str(said)
