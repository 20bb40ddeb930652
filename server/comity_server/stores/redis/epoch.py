"""The epoch of a Redis, which is another one after it has lost what it had acknowledged.

A namespace begins in the epoch of the whole, and goes on in another where its own loss was found: so watchers are told
that its history is not the one that they know.
"""

import time
import uuid
from functools import partial
from typing import Final

import structlog

from comity_server.stores.redis import keys
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.loading import Meta, understood
from comity_server.stores.redis.script import Script

log = structlog.get_logger(__name__)

RENEW: Final = Script("renew")


class Epoch:
    """What the servers of one Redis have agreed on."""

    def __init__(self, client: Client) -> None:
        self.current = ""  # empty as long as none is known
        self.lost_at: float | None = None  # when it was found that Redis had lost what it had acknowledged
        self._client = client

    def begun(self, meta: Meta) -> Meta:
        """Where a namespace stands, or that it would begin in the epoch of the whole."""
        return meta if meta.epoch else meta._replace(epoch=self.current)

    async def agree(self) -> None:
        """Agree with the other servers on an epoch."""
        name = keys.epoch(self._client.target.prefix)
        found = await self._client.call("GET", name)
        if found is None:
            await self._client.call("SET", name, uuid.uuid4().hex, "NX")
            found = await self._client.call("GET", name)
        self._note(found)

    async def look(self, found: bytes | None) -> None:
        """What the epoch was found to be: another one, or none, if Redis has lost what it had acknowledged."""
        if found is None:
            await self.agree()
        else:
            self._note(found)

    def _note(self, found: bytes | None) -> None:
        with understood("its epoch"):
            epoch = (found or b"").decode()
        if self.current and epoch != self.current:
            self.lost_at = time.monotonic()
            log.error("Redis has lost what it had acknowledged", epoch=epoch, known=self.current)
        self.current = epoch

    async def renew(self, name: str, known: Meta, found: Meta) -> None:
        """Have a namespace that has lost what it was known to have, and the whole, go on in another epoch."""
        self.lost_at = time.monotonic()
        log.error("Redis has lost what it had acknowledged", namespace=name, known=known.revision, found=found.revision)
        prefix = self._client.target.prefix
        # Either may be what the namespace has its epoch from, and neither is renewed twice for one loss.
        for key in (keys.Keys(prefix, name).meta, keys.epoch(prefix)):
            arguments = [known.epoch, uuid.uuid4().hex]
            await self._client.repeated(partial(self._client.run, RENEW, [key], arguments))
        await self.agree()


def is_lost(known: Meta, found: Meta) -> bool:
    """Whether Redis has forgotten what this server knows that it had."""
    if found.epoch != known.epoch:
        return False  # another server has noticed, or this one by another namespace
    at, was = (found.generation, *found.place), (known.generation, *known.place)
    return at < was or (at == was and found.last != known.last)
