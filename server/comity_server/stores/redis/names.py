"""The list of the namespaces of a Redis.

It is in another slot than they are: so a name is listed before its namespace begins, and may be listed where there is
none.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from comity_server.errors import StateError
from comity_server.limits import Limits, Share
from comity_server.model import NamespaceInfo
from comity_server.stores.redis import keys
from comity_server.stores.redis.failures import Unreadable
from comity_server.stores.redis.replicas import Moved, Replicas
from comity_server.stores.redis.script import Script

log = structlog.get_logger(__name__)

REGISTER: Final = Script("register")

PAGE: Final = 200  # names that are looked up at a time


class TooMany(Exception):
    """Redis has as many namespaces as there may be: of all, or of some."""

    def __init__(self, share: Share) -> None:
        super().__init__(share)
        self.share = share


class Names:
    """Reads it, and keeps it as it should be."""

    def __init__(self, replicas: Replicas, limits: Limits) -> None:
        self._client = replicas.client
        self._replicas = replicas
        self._limits = limits
        self._unreadable: set[str] = set()  # namespaces of which the log has said so

    async def register(self, name: str, share: Share | None) -> None:
        """A name is listed before the namespace is there, since the two are in different slots. Raises TooMany, also
        for those that it has a share with, and Moved if the namespace would begin in an epoch that has ended."""
        await self._replicas.epoch.agree()
        meta = self._replicas.find(name).meta
        if meta.epoch != (await self._replicas.meta(name)).epoch:
            await self._replicas.advance(name)
            raise Moved
        shares = [Share("", self._limits.namespaces), *([share] if share is not None else ())]
        arguments = [value for low, most in shares for value in (b"[" + low.encode(), _behind(low), most)]
        listed = keys.names(self._client.target.prefix)
        full = await self._client.repeated(partial(self._client.run, REGISTER, [listed], [name, *arguments]))
        if full:
            raise TooMany(shares[full - 1])

    async def enlist(self, name: str) -> None:
        """A namespace is there."""
        await self._client.call("ZADD", keys.names(self._client.target.prefix), 0, name)

    async def enlist_again(self, name: str) -> None:
        """Once more when it is there: whoever deletes a namespace of this name takes it off the list. That it has begun
        stands, whether this can be done now or not."""
        try:
            await self.enlist(name)
        except StateError as error:
            log.warning("a namespace could not be listed yet", namespace=name, error=error.message)

    async def unlist(self, name: str) -> None:
        """Of a name no namespace is there any more."""
        await self._client.call("ZREM", keys.names(self._client.target.prefix), name)
        if (await self._replicas.meta(name)).exists:  # it has come again meanwhile
            await self.enlist(name)

    async def infos(
        self, prefix: str, after: str, limit: int, shown: Callable[[str], bool] | None = None
    ) -> Sequence[NamespaceInfo]:
        """What there is of namespaces, in the order of their names: see `Store.namespaces`."""
        found: list[NamespaceInfo] = []
        listed = keys.names(self._client.target.prefix)
        low = f"[{prefix}".encode() if not after or after < prefix else f"({after}".encode()
        high = _behind(prefix)
        size = min(limit, PAGE) if shown is None else PAGE  # there may be very many that are not
        while len(found) < limit:
            page = await self._client.call("ZRANGEBYLEX", listed, low, high, "LIMIT", 0, size)
            names = [name.decode() for name in page if _is_text(name)]
            if shown is not None:
                names = list(filter(shown, names))
            metas = await self._replicas.metas(names)
            for name, meta in zip(names, metas, strict=True):
                if isinstance(meta, Unreadable):  # which keeps nothing from the others
                    if name not in self._unreadable:
                        log.error("a namespace cannot be read", namespace=name, error=meta.message)
                    self._unreadable.add(name)
                    continue
                self._unreadable.discard(name)
                if not meta.exists:  # whoever was to begin or to delete it has ended before it was through
                    await self.unlist(name)
                elif len(found) < limit:
                    replica = self._replicas.known(name)
                    known = replica is not None and replica.meta.stands == meta.stands and not replica.stale
                    found.append(replica.state.info() if replica is not None and known else meta.info(name))
            if len(page) < size:
                break
            low = b"(" + page[-1]
        return found


def _behind(prefix: str) -> bytes:
    """The end of the names that begin so."""
    return b"[" + prefix.encode() + b"\xff"


def _is_text(name: bytes) -> bool:
    """Whether it may be the name of a namespace."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
