"""Makes a change of a namespace that is conditional on where it stands, and finds out whether it was made where the
answer was lost."""

from typing import Any

from comity_server.errors import StoreUnavailable
from comity_server.stores.redis import codec
from comity_server.stores.redis.failures import Passing
from comity_server.stores.redis.replicas import Moved, Renewed, Replica, Replicas


async def decide(
    replicas: Replicas,
    replica: Replica,
    attempt: Any,
    place: tuple[int, int] | None = None,
    token: bytes = b"",
) -> bool:
    """Make a conditional change, and again where it is not known whether it was made: it is made once at the most,
    since it is conditional on where the namespace stands. Raises Moved if others changed it first, Renewed if it
    ends leases that have not run out. Returns whether it was made, and did not have to wait for others."""
    name = replica.state.name
    patience = replicas.client.patience()
    while True:
        try:
            answer = await attempt()
        except Passing as error:
            await patience.wait(error)
            continue
        if answer[0] == 3:
            raise Renewed
        if answer[0] != 0:
            return bool(answer[0] == 1)
        if patience.tries and place is not None and await _is_mine(replicas, replica, place, token):
            await replicas.client.await_replicas(replicas.keys(name).meta)
            return True
        await replicas.advance(name)
        raise Moved


async def _is_mine(replicas: Replicas, replica: Replica, place: tuple[int, int], token: bytes) -> bool:
    """Whether the entry at a place is the one that an earlier attempt appended. Raises StoreUnavailable if nobody
    can tell any more."""
    name = replica.state.name
    key = replicas.keys(name).log(replica.meta.generation)
    id = f"{place[0]}-{place[1]}"
    found = await replicas.client.call("XRANGE", key, id, id)
    for _, fields in found:
        if token.hex().encode() in (fields.get(b"s", b"").partition(b":")[0], fields.get(b"e")):
            return True
        data = fields.get(b"d")
        if data is not None and codec.unpack_entry(data).token == token:
            return True
    meta = await replicas.meta(name)
    if not found and meta.generation == replica.meta.generation and meta.base >= place[0]:
        raise StoreUnavailable("it was compacted before it was known whether this was done")
    return False
