"""Whether each server that writes go to takes them, and has the replicas that are waited for."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError

from comity_server.errors import StoreUnavailable
from comity_server.stores.redis import keys
from comity_server.stores.redis.url import Target

LAG_SECONDS: Final = 3  # a replica says each second how far it is; of one that was silent for longer, nothing is known
LEARN_SECONDS: Final = 30.0  # how often a Cluster is asked whether it has other primaries
KEYS_TRIED: Final = 1000  # for each primary, until one is found that it has


class TooFewReplicas(StoreUnavailable):
    """No write is acknowledged before there are more."""


class Primaries:
    """The primaries of a Redis: one, or on a Cluster those that have slots.

    Args:
        target: where it is.
        redis: a connection to it, of redis-py.
        wait_replicas: how many replicas must have a write before it is answered.
    """

    def __init__(self, target: Target, redis: Any, wait_replicas: int) -> None:
        self._target = target
        self._redis = redis
        self._wait_replicas = wait_replicas
        self._keys: dict[str, str] = {}  # one of those that each has, by its name
        self._learned = time.monotonic()

    async def check(self) -> Sequence[str]:
        """Returns a key of each of them that may be written to. Raises TooFewReplicas if one lacks replicas, and what
        redis-py raises if one cannot be reached, or refuses to write."""
        tried = await self._tried()
        for error in await asyncio.gather(*map(self._check, tried), return_exceptions=True):
            if error is not None:
                raise error
        return tried

    async def _tried(self) -> Sequence[str]:
        """A key of each of them to try writes with."""
        if self._target.form != "cluster":
            return [keys.probes(self._target.prefix)]
        await self._redis.initialize()
        if time.monotonic() > self._learned + LEARN_SECONDS:
            await self._redis.nodes_manager.initialize()
            self._learned = time.monotonic()
        names = {node.name for node in self._redis.get_primaries()}
        if names != self._keys.keys() or any(self._owner(key) != name for name, key in self._keys.items()):
            self._keys = dict(self._chosen(names))
        return list(self._keys.values())

    async def _check(self, key: str) -> None:
        # Redis refuses it like any write; but once the key is there it changes nothing, so that no file grows by it.
        await self._redis.execute_command("SET", key, 0, "NX")
        if self._wait_replicas:
            of = {"target_nodes": self._redis.get_node_from_key(key)} if self._target.form == "cluster" else {}
            try:
                told = await self._redis.execute_command("INFO", "replication", **of)
            except (NoPermissionError, ResponseError):  # it does not tell: writes will
                return
            connected = replicas(told)
            if connected < self._wait_replicas:
                raise TooFewReplicas(f"only {connected} of {self._wait_replicas} replicas are connected to Redis")

    def _chosen(self, names: set[str]) -> Iterator[tuple[str, str]]:
        lacking = set(names)
        for number in range(KEYS_TRIED * len(names)):
            key = keys.probes(self._target.prefix, number)
            owner = self._owner(key)
            if owner in lacking:
                lacking.remove(owner)
                yield owner, key
            if not lacking:
                return

    def _owner(self, key: str) -> str:
        name: str = self._redis.get_node_from_key(key).name
        return name


def replicas(told: Mapping[Any, Any]) -> int:
    """How many are connected to a server and keep up with it, by what it says in INFO."""
    found = (value for name, value in told.items() if str(name).startswith("slave") and isinstance(value, dict))
    return sum(one.get("state") == "online" and int(one.get("lag", 0)) <= LAG_SECONDS for one in found)
