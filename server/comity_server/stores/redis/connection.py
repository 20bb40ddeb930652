"""Connections to Redis, of redis-py: to one, by Sentinels, to a Cluster."""

from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from comity_server.stores.redis.url import Target

CONNECT_SECONDS: Final = 1.0
CONNECTIONS: Final = 1 << 20  # no bound: how many calls there are at a time is for others to bound

Connection = Any  # a Redis or a RedisCluster: redis-py types their commands apart


def connect(target: Target, answer_seconds: float) -> Connection:
    """Connections to a Redis, by which each command may take so many seconds."""
    # redis-py is told not to try again by itself: who calls knows what may be done twice.
    common: dict[str, Any] = {
        **target.connection,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": answer_seconds,
        "socket_keepalive": True,
        "max_connections": CONNECTIONS,
        "retry": Retry(NoBackoff(), 0),
    }
    match target.form:
        case "single":
            ((host, port),) = target.hosts
            return Redis(host=host, port=port, **common)
        case "sentinel":
            sentinels = Sentinel(  # type: ignore[no-untyped-call]
                list(target.hosts),
                sentinel_kwargs={
                    **target.sentinel,
                    **{name: value for name, value in target.connection.items() if name.startswith("ssl")},
                    "socket_connect_timeout": CONNECT_SECONDS,
                    "socket_timeout": CONNECT_SECONDS,
                },
                **common,
            )
            return sentinels.master_for(target.service)
        case "cluster":
            return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in target.hosts], **common)


def sentinels_of(connection: Connection) -> Sequence[Redis]:
    """The connections to Sentinels that a connection has beside its own: redis-py leaves them open."""
    manager = getattr(getattr(connection, "connection_pool", None), "sentinel_manager", None)
    return manager.sentinels if manager is not None else []


async def pipelined(redis: Connection, commands: Sequence[Sequence[Any]]) -> Sequence[Any]:
    """The answer, or the error, to each of some commands."""
    pipeline = redis.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    answers: Sequence[Any] = await pipeline.execute(raise_on_error=False)
    return answers
