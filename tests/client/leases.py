"""What tests do with leases."""

from typing import Any

from comity import Client, Lease, LeaseNotFound
from tests.client.states import value
from tests.waiting import until

SHORT = 1.0  # the least ttl that a server grants
KEPT = 3.0  # one that passes while a test waits, but not while it is held up
LONG = 30.0  # one that does not pass; the first renewal comes soon all the same


async def revoked_by_another(state: Client, lease: Lease) -> None:
    """End a lease behind the back of its holder, who is not told before it has asked."""
    await state.revoke_lease(lease.id)


async def gone(state: Client, lease: Lease | int) -> bool:
    try:
        await state.get_lease(lease)
    except LeaseNotFound:
        return True
    return False


async def value_of(state: Client, key: str) -> Any:
    return value(await state.get(key))


async def renewed(lease: Lease) -> None:
    """Wait until a renewal was answered after this call. Raises LeaseLost."""
    before = lease._deadline
    await until(lambda: lease._deadline > before or not lease.alive)
    lease.check()
