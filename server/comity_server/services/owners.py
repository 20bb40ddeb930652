"""Whose a lease is: who was given it may renew and end it, and have keys live by it, and whoever may write the whole of
its namespace."""

from collections.abc import Iterable

from comity_server.access.caller import Caller
from comity_server.access.rights import EVERYTHING, WRITE
from comity_server.errors import PermissionDenied
from comity_server.model import Operation, Put
from comity_server.names import owns
from comity_server.services.validate import Checks
from comity_server.stores.protocol import Store


def required(caller: Caller, namespace: str) -> str | None:
    """The principal that a lease of a namespace has to be of, for its caller to renew or end it, or add to it.

    None: of any, as where nobody is asked who they are.
    """
    return None if not caller.guard.asks or caller.rights(namespace).may(WRITE, "") else caller.principal


def of_keys(operations: Iterable[Operation], checks: Checks) -> str | None:
    """The principal that leases have to be of by which the keys of some operations are to live. None: of any, as where
    there are none."""
    if checks.rights is EVERYTHING or not any(isinstance(each, Put) and each.lease_id for each in operations):
        return None
    return required(checks.caller, checks.within)


async def check(store: Store, principal: str, namespace: str, lease_id: int) -> None:
    """Raise PermissionDenied if a lease is not a principal's, or NotFound."""
    if not owns(principal, (await store.lease(namespace, lease_id)).lease.author):
        raise PermissionDenied(principal, "WRITE", namespace, lease_id=str(lease_id))
