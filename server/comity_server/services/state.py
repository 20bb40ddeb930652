"""StateService: reads, writes and transactions; watches and histories are in modules of their own."""

from collections.abc import AsyncGenerator

from comity.v1 import state_pb2
from comity_server.committer import Committer
from comity_server.errors import Conflict
from comity_server.feed import Feed
from comity_server.limits import Limits
from comity_server.model import DeleteResult, Outcome, PutResult, Transaction
from comity_server.record import MOD_REVISION, VERSION
from comity_server.services import blame, history, pages, requests, watch, wire
from comity_server.services.rpc import Context
from comity_server.services.submit import submit
from comity_server.services.validate import Checks
from comity_server.stores.protocol import Store


class StateService:
    """Handlers of `comity.v1.StateService`. See the proto for what each promises."""

    def __init__(
        self, store: Store, committer: Committer, feed: Feed, limits: Limits, progress_interval: float
    ) -> None:
        self._store = store
        self._committer = committer
        self._feed = feed
        self._limits = limits
        self._progress_interval = progress_interval

    async def Get(self, request: state_pb2.GetRequest, context: Context) -> state_pb2.GetResponse:
        checks = Checks(self._limits)
        namespace, key, revision = request.namespace, request.key, request.revision
        checks.namespace("namespace", namespace)
        checks.key("key", key)
        checks.count("revision", revision)
        checks.finish()
        entry, revision = await self._store.get(namespace, key, revision)
        response = state_pb2.GetResponse()
        response.revision = revision
        if entry is not None:
            wire.fill_entry(response.entry, entry)
        return response

    async def List(self, request: state_pb2.ListRequest, context: Context) -> state_pb2.ListResponse:
        checks = Checks(self._limits)
        namespace, prefix, revision, keys_only = request.namespace, request.prefix, request.revision, request.keys_only
        checks.namespace("namespace", namespace)
        checks.prefix("prefix", prefix)
        checks.count("revision", revision)
        limit = checks.page_size("page_size", request.page_size)
        checks.finish()
        after = epoch = ""
        if place := pages.unseal(request, int, str, str):
            revision, after, epoch = place
            pages.check_epoch(epoch, await self._store.position(namespace))
        page = await self._store.list(
            namespace,
            prefix,
            after=after,
            limit=limit,
            max_bytes=self._limits.page_bytes,
            keys_only=keys_only,
            revision=revision,
        )
        response = state_pb2.ListResponse()
        response.revision = page.revision
        add = response.entries.add
        for entry in page.entries:
            wire.fill_entry(add(), entry, keys_only)
        if page.next_after is not None:
            epoch = epoch or (await self._store.position(namespace)).epoch
            response.next_page_token = pages.seal(request, [page.revision, page.next_after, epoch])
        return response

    async def Put(self, request: state_pb2.PutRequest, context: Context) -> state_pb2.PutResponse:
        transaction, outcome = await submit(self._committer, self._limits, request, context, requests.put)
        response = state_pb2.PutResponse()
        match outcome.results:
            case [PutResult(version, previous)]:
                response.revision = outcome.revision
                response.version = version
                if previous is not None:
                    wire.fill_entry(response.previous, previous)
                return response
        raise _conflict(transaction, outcome)

    async def Delete(self, request: state_pb2.DeleteRequest, context: Context) -> state_pb2.DeleteResponse:
        transaction, outcome = await submit(self._committer, self._limits, request, context, requests.delete)
        response = state_pb2.DeleteResponse()
        match outcome.results:
            case [DeleteResult(deleted, previous, truncated)]:
                response.revision = outcome.revision
                response.deleted = deleted
                for entry in previous:
                    wire.fill_entry(response.previous.add(), entry)
                response.previous_truncated = truncated
                return response
        raise _conflict(transaction, outcome)

    async def Transact(self, request: state_pb2.TransactRequest, context: Context) -> state_pb2.TransactResponse:
        _, outcome = await submit(self._committer, self._limits, request, context, requests.transaction)
        return wire.transact_response(outcome)

    async def History(self, request: state_pb2.HistoryRequest, context: Context) -> state_pb2.HistoryResponse:
        return await history.read(self._store, self._limits, request)

    async def Blame(self, request: state_pb2.BlameRequest, context: Context) -> state_pb2.BlameResponse:
        return await blame.read(self._store, self._limits, request)

    def Watch(self, request: state_pb2.WatchRequest, context: Context) -> AsyncGenerator[bytes]:
        return watch.stream(self._feed, self._limits, self._progress_interval, request)


def _conflict(transaction: Transaction, outcome: Outcome) -> Conflict:
    """What a put or delete is answered with whose conditions do not hold. Without the value: trailers are small."""
    failed = outcome.failed[0]
    target = transaction.conditions[failed.position].target
    if transaction.conditions[failed.position].is_prefix:
        return Conflict(
            f"revision {failed.changed_revision} changed something under the prefix {target}",
            prefix=target,
            changed_revision=failed.changed_revision,
            revision=outcome.revision,
        )
    current = failed.current
    version, mod_revision = (current[VERSION], current[MOD_REVISION]) if current is not None else (0, 0)
    found = f"is at version {version}, written by revision {mod_revision}" if version else "does not exist"
    return Conflict(
        f"the key {found}: {target}", key=target, version=version, mod_revision=mod_revision, revision=outcome.revision
    )
