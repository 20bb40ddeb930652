"""LeaseService: what lives only while somebody keeps it alive."""

from collections.abc import AsyncGenerator

from comity.v1 import lease_pb2
from comity_server.access.rights import READ
from comity_server.committer import Committer
from comity_server.limits import Limits
from comity_server.model import DeleteResult, Lease, LeaseInfo
from comity_server.services import actions, pages, wire
from comity_server.services.call import Call
from comity_server.services.keepalive import KeepAlives
from comity_server.services.receiving import Requests
from comity_server.services.submit import submit
from comity_server.services.validate import Checks
from comity_server.stores.protocol import Store


class LeaseService:
    """Handlers of `comity.v1.LeaseService`. See the proto for what each promises."""

    def __init__(self, store: Store, committer: Committer, limits: Limits) -> None:
        self._store = store
        self._committer = committer
        self._keep_alives = KeepAlives(store, limits)
        self._limits = limits

    async def run(self) -> None:
        """Tell those who keep leases alive of leases that have ended, until cancelled."""
        await self._keep_alives.run()

    def close(self) -> None:
        """Read no more renewals, and end each stream when what was read has its answers."""
        self._keep_alives.close()

    async def GrantLease(self, request: lease_pb2.GrantLeaseRequest, call: Call) -> lease_pb2.GrantLeaseResponse:
        _, outcome = await submit(self._committer, self._limits, request, call, actions.grant)
        response = lease_pb2.GrantLeaseResponse()
        match outcome.results:
            case [Lease() as lease]:  # of a repeat as it was then
                wire.fill_lease(response.lease, LeaseInfo(lease, lease.ttl, 0), lease.create_time)
        return response

    def KeepAlive(self, messages: Requests, call: Call) -> AsyncGenerator[bytes]:
        return self._keep_alives.stream(messages, call)

    async def RevokeLease(self, request: lease_pb2.RevokeLeaseRequest, call: Call) -> lease_pb2.RevokeLeaseResponse:
        _, outcome = await submit(self._committer, self._limits, request, call, actions.revoke)
        response = lease_pb2.RevokeLeaseResponse(revision=outcome.revision)
        match outcome.results:
            case [DeleteResult(deleted)]:
                response.deleted = deleted
        return response

    async def GetLease(self, request: lease_pb2.GetLeaseRequest, call: Call) -> lease_pb2.GetLeaseResponse:
        namespace, lease_id = request.namespace, request.lease_id
        checks = Checks(self._limits, call.caller)
        checks.namespace("namespace", namespace)
        checks.lease_id("lease_id", lease_id)
        checks.somewhere(READ)
        checks.finish()
        response = lease_pb2.GetLeaseResponse()
        wire.fill_lease(response.lease, await self._store.lease(namespace, lease_id), self._store.time())
        return response

    async def ListLeases(self, request: lease_pb2.ListLeasesRequest, call: Call) -> lease_pb2.ListLeasesResponse:
        namespace = request.namespace
        checks = Checks(self._limits, call.caller)
        checks.namespace("namespace", namespace)
        checks.somewhere(READ)
        limit = checks.page_size("page_size", request.page_size)
        checks.finish()
        (after,) = pages.unseal(request, int) or [0]
        found = await self._store.leases(namespace, after=after, limit=limit + 1)
        now = self._store.time()
        response = lease_pb2.ListLeasesResponse()
        for info in found[:limit]:
            wire.fill_lease(response.leases.add(), info, now)
        if len(found) > limit:
            response.next_page_token = pages.seal(request, [found[limit - 1].lease.id])
        return response
