"""Leases: granting them, keeping them alive, ending them; what a client does with those of its namespace."""

from collections.abc import AsyncIterator

from comity import clock, convert, listing, model
from comity.arguments import built
from comity.base import Base
from comity.errors import LeaseLost, LeaseNotFound
from comity.request_ids import RequestId
from comity.v1 import lease_pb2

from . import renewal
from .block import Leasing
from .guard import Guard, OfLease, lease_id_of
from .keeper import Keeper
from .lease import Lease
from .ttl import duration, micros_of

__all__ = ["Leases"]


class Leases(Base):
    """The part of a client that is about what lives only while somebody keeps it alive."""

    def lease(self, ttl: float, *, message: str = "", timeout: float | None = None) -> Leasing:
        """A lease for a block, which is kept alive in it, and revoked at its end: its keys are deleted then.

            async with state.lease(10.0) as lease:
                await state.put("agents/a", {"busy": False}, lease=lease)
                await state.put("x", 1, guard=lease)  # comity.LeaseLost if it has ended

        If the lease is lost, the block is cancelled, as asyncio.timeout does, and LeaseLost is raised. What the block
        raises is raised before that of the revoking, which takes at most some seconds.

        ttl, message, timeout: as of `grant_lease`.
        """
        micros_of(ttl)

        async def grant() -> Lease:
            return await self.grant_lease(ttl, message=message, timeout=timeout)

        return Leasing(grant, self.timeout)

    async def grant_lease(
        self,
        ttl: float,
        *,
        message: str = "",
        request_id: RequestId | None = None,
        guard: Guard | None = None,
        timeout: float | None = None,
    ) -> Lease:
        """A lease, which is kept alive from now on, until it is revoked or closed or the client is closed.

        ttl: seconds that it lives after each renewal, to the microsecond; from 1 to 86,400 unless the server is set
            otherwise. It is renewed every third of it, so it is also how long a holder may be away.
        message, guard: as of `put`.
        request_id: as of `put`. A repeat takes up the lease that the first call was granted, and renews it.

        Raises ResourceExhausted if the namespace has too many leases; TypeError and ValueError for what is no ttl;
        LeaseLost if it has ended meanwhile: it was granted so slowly, or long ago under this request id.
        """
        micros = micros_of(ttl)
        keeper = self._calls.keepers.keeper()
        request = built(lease_pb2.GrantLeaseRequest, namespace=self.namespace, ttl=duration(micros))
        asked = clock.now()
        response = await self._write(lambda to: to.leases.GrantLease, request, message, timeout, request_id, guard)
        id = response.lease.id
        left = seconds = micros / 1e6
        if request_id is not None or clock.now() - asked > seconds / 2:  # it may have been granted by an earlier try
            asked = clock.now()
            try:
                left = await self.renew_lease(id, timeout=timeout)
            except LeaseNotFound as error:
                when = "before its grant was answered: its ttl is too short, or the request id that of an earlier grant"
                raise LeaseLost(
                    f"lease {id}, of {seconds:g} s, has ended {when}", reason="LEASE_LOST", metadata=error.metadata
                ) from error
        return self._held(id, seconds, asked + left, keeper)

    async def keep_alive(self, lease: OfLease, *, ttl: float | None = None, timeout: float | None = None) -> Lease:
        """Keep alive a lease that exists: that of a put with a ttl, or another process's. As of `grant_lease`.

        lease: its id.
        ttl: the seconds that it was put with, if they are known: that spares a call. The server is asked for them if
            it cannot be so, going by what it says of the renewal.

        Raises LeaseNotFound if it has ended; TypeError and ValueError for what is no ttl.
        """
        id = lease_id_of(lease, self.namespace)
        known = None if ttl is None else micros_of(ttl) / 1e6
        keeper = self._calls.keepers.keeper()
        asked = clock.now()
        left = await self.renew_lease(id, timeout=timeout)
        if known is None or not known / 2 <= left <= known + 1e-6:
            known = (await self.get_lease(id, timeout=timeout)).ttl
        return self._held(id, known, asked + left, keeper)

    async def renew_lease(self, lease: OfLease, *, timeout: float | None = None) -> float:
        """Renew a lease once: for who keeps it alive by a way of its own.

        lease: a `Lease` or an id. Returns the seconds that it lives from now on, as the server counts: who goes by them
        counts from before the call. Raises LeaseNotFound if it has ended.
        """
        id = lease_id_of(lease, self.namespace)
        request = built(lease_pb2.KeepAliveRequest, namespace=self.namespace, lease_id=id)
        return await self._calls.read(renewal.once, request, self._timeout(timeout))

    async def revoke_lease(
        self,
        lease: OfLease,
        *,
        message: str = "",
        request_id: RequestId | None = None,
        guard: Guard | None = None,
        timeout: float | None = None,
    ) -> int:
        """End a lease, whoever holds it, and delete its keys as one commit. Returns how many keys it had.

        lease: a `Lease` or an id.
        message, request_id, guard: as of `put`.

        Raises LeaseNotFound if it has ended.
        """
        id = lease_id_of(lease, self.namespace)
        request = built(lease_pb2.RevokeLeaseRequest, namespace=self.namespace, lease_id=id)
        response = await self._write(lambda to: to.leases.RevokeLease, request, message, timeout, request_id, guard)
        return response.deleted

    async def get_lease(self, lease: OfLease, *, timeout: float | None = None) -> model.LeaseInfo:
        """What the server knows of a lease. Raises LeaseNotFound if it has ended.

        lease: a `Lease` or an id.
        """
        id = lease_id_of(lease, self.namespace)
        request = built(lease_pb2.GetLeaseRequest, namespace=self.namespace, lease_id=id)
        response = await self._calls.read(lambda to: to.leases.GetLease, request, self._timeout(timeout))
        return convert.lease(response.lease)

    def list_leases(self, *, page_size: int = 0, timeout: float | None = None) -> AsyncIterator[model.LeaseInfo]:
        """The leases of the namespace in the order of their ids: `async for lease in state.list_leases()`.

        page_size: the most leases a call to the server brings; 0 is the server's choice, 1,000 its limit.
        timeout: of each page.

        Raises NotFound, as it is read, if there is no such namespace: nothing was ever written to it.
        """
        request = built(lease_pb2.ListLeasesRequest, namespace=self.namespace, page_size=page_size)
        return listing.leases(self._calls, request, self._timeout(timeout))

    def _held(self, id: int, ttl: float, deadline: float, keeper: Keeper) -> Lease:
        async def revoke(message: str, timeout: float | None) -> int:
            return await self.revoke_lease(id, message=message, timeout=timeout)

        lease = Lease(self.namespace, id, ttl, deadline, keeper, revoke)
        keeper.keep(lease)
        return lease
