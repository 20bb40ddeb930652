"""Until when leases live, which Redis says by its own clock: no server's matters. Which ones live the log says too, and
so every replica knows it."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Final

from comity_server.model import Lease
from comity_server.stores.redis import codec
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.keys import Keys
from comity_server.stores.redis.portions import scan
from comity_server.stores.redis.script import Script

KEEPALIVE: Final = Script("keepalive")
REMAINING: Final = Script("remaining")

LEASES: Final = 500  # that one script call looks at

Renewal = tuple[int, int]
"""A lease, and how many µs it lives from now on at the least; 0: its ttl."""


async def renew(client: Client, of: Keys, generation: int, renewals: Sequence[Renewal]) -> Sequence[int]:
    """Renew leases of a namespace, which is thought to be of some generation. Returns how many µs each lives from now
    on; 0: it has ended. Errors as of `Client.repeated`."""
    lives: list[int] = []
    while len(lives) < len(renewals):
        some = renewals[len(lives) : len(lives) + LEASES]
        names = [of.meta, of.leases(generation), of.deadlines(generation)]
        arguments = [generation, *chain.from_iterable(some)]
        found, *answers = await client.repeated(partial(client.run, KEEPALIVE, names, arguments))
        if int(found) == generation:
            lives += answers
        generation = int(found)
    return lives


async def remaining(client: Client, of: Keys, generation: int, ids: Sequence[int]) -> Sequence[int | None]:
    """How many µs leases have left: 0 or less if they have run out. None: it has ended. Errors as of
    `Client.repeated`."""
    found: list[int | None] = []
    for some in _few(ids):
        names = [of.deadlines(generation)]
        answers = await client.repeated(partial(client.look_by, REMAINING, names, some))
        found += [None if answer == b"" else int(answer) for answer in answers]
    return found


async def living(client: Client, of: Keys, generation: int) -> Sequence[Lease]:
    """The leases that live. One that is granted or ends meanwhile may be there or not. Errors as of
    `Client.repeated`."""
    leases = of.leases(generation)
    found = {field: codec.unpack_lease(field, data) async for field, data in scan(client, leases)}  # it may come twice
    return list(found.values())


def _few(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), LEASES):
        yield ids[start : start + LEASES]
