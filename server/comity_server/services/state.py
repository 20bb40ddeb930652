"""StateService: reads, writes and transactions; watches and histories are in modules of their own."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

from comity.v1 import state_pb2
from comity_server.access.rights import READ
from comity_server.committer import Committer
from comity_server.feed import Feed
from comity_server.limits import Limits
from comity_server.model import DeleteResult, PutResult
from comity_server.services import blame, history, lists, requests, watch, wire
from comity_server.services.call import Call
from comity_server.services.conflicts import conflict
from comity_server.services.outbox import Outboxes
from comity_server.services.pipeline import Pipelines
from comity_server.services.receiving import Requests
from comity_server.services.submit import submit
from comity_server.services.validate import Checks
from comity_server.stores.protocol import Store
from comity_server.telemetry.tally import Tally


class Rooms(NamedTuple):
    """What there is for answers that are not taken off."""

    watches: Outboxes
    pipelines: Outboxes


class StateService:
    """Handlers of `comity.v1.StateService`. See the proto for what each promises."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        feed: Feed,
        limits: Limits,
        progress_interval: float,
        tally: Tally,
        rooms: Rooms,
    ) -> None:
        self._store = store
        self._committer = committer
        self._feed = feed
        self._pipelines = Pipelines(store, committer, limits, tally, rooms.pipelines)
        self._watches = rooms.watches
        self._limits = limits
        self._progress_interval = progress_interval

    def close(self) -> None:
        """Read no more of any pipeline, and end each when what it was sent has its answers. No watch waits for room any
        more."""
        self._pipelines.close()
        self._watches.close()

    async def Get(self, request: state_pb2.GetRequest, call: Call) -> state_pb2.GetResponse:
        checks = Checks(self._limits, call.caller)
        namespace, key, revision = request.namespace, request.key, request.revision
        checks.namespace("namespace", namespace)
        checks.key("key", key, READ)
        checks.count("revision", revision)
        checks.finish()
        entry, revision, epoch = await self._store.get(namespace, key, revision)
        response = state_pb2.GetResponse()
        response.revision = revision
        response.epoch = epoch
        if entry is not None:
            wire.fill_entry(response.entry, entry)
        return response

    async def List(self, request: state_pb2.ListRequest, call: Call) -> state_pb2.ListResponse:
        return await lists.read(self._store, self._limits, call.caller, request)

    async def Put(self, request: state_pb2.PutRequest, call: Call) -> state_pb2.PutResponse:
        transaction, outcome = await submit(self._committer, self._limits, request, call, requests.put)
        response = state_pb2.PutResponse()
        match outcome.results:
            case [PutResult(version, previous, lease_id)]:
                response.revision = outcome.revision
                response.version = version
                response.lease_id = lease_id
                if previous is not None:
                    wire.fill_entry(response.previous, previous)
                return response
        raise conflict(transaction, outcome)

    async def Delete(self, request: state_pb2.DeleteRequest, call: Call) -> state_pb2.DeleteResponse:
        transaction, outcome = await submit(self._committer, self._limits, request, call, requests.delete)
        response = state_pb2.DeleteResponse()
        match outcome.results:
            case [DeleteResult(deleted, previous, truncated)]:
                response.revision = outcome.revision
                response.deleted = deleted
                for entry in previous:
                    wire.fill_entry(response.previous.add(), entry)
                response.previous_truncated = truncated
                return response
        raise conflict(transaction, outcome)

    async def Transact(self, request: state_pb2.TransactRequest, call: Call) -> state_pb2.TransactResponse:
        _, outcome = await submit(self._committer, self._limits, request, call, requests.transaction)
        response = state_pb2.TransactResponse()
        wire.fill_transact(response, outcome)
        return response

    async def History(self, request: state_pb2.HistoryRequest, call: Call) -> state_pb2.HistoryResponse:
        return await history.read(self._store, self._limits, call.caller, request)

    async def Blame(self, request: state_pb2.BlameRequest, call: Call) -> state_pb2.BlameResponse:
        return await blame.read(self._store, self._limits, call.caller, request)

    def Pipeline(self, messages: Requests, call: Call) -> AsyncGenerator[bytes]:
        return self._pipelines.stream(messages, call)

    def Watch(self, request: state_pb2.WatchRequest, call: Call) -> AsyncGenerator[bytes]:
        return watch.stream(self._feed, self._watches, self._limits, self._progress_interval, call, request)
