"""Whose a lease is: who was given it may renew and end it, and whoever may write the whole of its namespace."""

from comity_server.access.caller import Caller
from comity_server.access.rights import WRITE
from comity_server.errors import PermissionDenied
from comity_server.names import owns
from comity_server.stores.protocol import Store


def required(caller: Caller, namespace: str) -> str | None:
    """The principal that a lease of a namespace has to be of, for its caller to renew or end it.

    None: of any, as where nobody is asked who they are.
    """
    return None if not caller.guard.asks or caller.rights(namespace).may(WRITE, "") else caller.principal


async def check(store: Store, principal: str, namespace: str, lease_id: int) -> None:
    """Raise PermissionDenied if a lease is not a principal's, or NotFound."""
    if not owns(principal, (await store.lease(namespace, lease_id)).lease.author):
        raise PermissionDenied(principal, "WRITE", namespace, lease_id=str(lease_id))
