"""Whose a lease is: who was given it may renew and end it, and whoever may write the whole of its namespace."""

from comity_server.access.caller import Caller
from comity_server.access.rights import WRITE
from comity_server.errors import NotFound, PermissionDenied
from comity_server.stores.protocol import Store


async def check(store: Store, caller: Caller, namespace: str, lease_id: int) -> None:
    """Raise PermissionDenied if a lease is not its caller's. One that there is not is nobody's, and is let through: so
    who had a lease learns that it has ended."""
    if caller.rights(namespace).may(WRITE, ""):
        return
    try:
        author = (await store.lease(namespace, lease_id)).lease.author
    except NotFound:
        return
    if not caller.owns(author):
        raise PermissionDenied(caller.principal, "WRITE", namespace, lease_id=str(lease_id))
