"""NamespaceService: what there is, how large it is, branching, and forgetting."""

from typing import Final

from comity.v1 import namespace_pb2
from comity_server.access.caller import Caller
from comity_server.access.rights import ADMIN, ANY
from comity_server.committer import Committer
from comity_server.limits import Limits
from comity_server.model import MergeResult, NamespaceInfo
from comity_server.services import actions, pages, wire
from comity_server.services.call import Call
from comity_server.services.submit import submit
from comity_server.services.validate import Checks
from comity_server.stores.protocol import Store

NAMES: Final = 100  # of namespaces that are looked at: they count for about an operation


class NamespaceService:
    """Handlers of `comity.v1.NamespaceService`. See the proto for what each promises."""

    def __init__(self, store: Store, committer: Committer, limits: Limits) -> None:
        self._store = store
        self._committer = committer
        self._limits = limits

    async def GetNamespace(
        self, request: namespace_pb2.GetNamespaceRequest, call: Call
    ) -> namespace_pb2.GetNamespaceResponse:
        name = request.namespace
        checks = Checks(self._limits, call.caller)
        checks.namespace("namespace", name)
        checks.somewhere(ANY)
        checks.finish()
        response = namespace_pb2.GetNamespaceResponse()
        wire.fill_namespace(response.namespace, await self._store.namespace(name))
        _hide_parent(response.namespace, call.caller)
        return response

    async def ListNamespaces(
        self, request: namespace_pb2.ListNamespacesRequest, call: Call
    ) -> namespace_pb2.ListNamespacesResponse:
        prefix = request.prefix
        checks = Checks(self._limits, call.caller)
        checks.anyone()
        checks.namespace_prefix("prefix", prefix)
        limit = checks.page_size("page_size", request.page_size)
        checks.finish()
        (after,) = pages.unseal(request, str) or [""]
        looked_at = 0

        def is_shown(name: str) -> bool:
            nonlocal looked_at
            looked_at += 1
            return _is_visible(name, call.caller)

        try:  # a page token may name no namespace that is not shown: so a page looks as far as the next one that is
            found = await self._store.namespaces(prefix, after=after, limit=limit + 1, shown=is_shown)
        finally:
            call.meter.charge(looked_at // NAMES, 0)
        response = namespace_pb2.ListNamespacesResponse()
        for info in found[:limit]:
            wire.fill_namespace(response.namespaces.add(), info)
            _hide_parent(response.namespaces[-1], call.caller)
        if len(found) > limit:
            response.next_page_token = pages.seal(request, [found[limit - 1].name])
        return response

    async def DeleteNamespace(
        self, request: namespace_pb2.DeleteNamespaceRequest, call: Call
    ) -> namespace_pb2.DeleteNamespaceResponse:
        name = request.namespace
        if_revision = request.if_revision if request.HasField("if_revision") else None
        checks = Checks(self._limits, call.caller)
        checks.namespace("namespace", name)
        checks.everywhere(ADMIN)
        checks.count("if_revision", if_revision or 0)
        checks.finish()
        await self._store.delete_namespace(name, if_revision)
        return namespace_pb2.DeleteNamespaceResponse()

    async def Compact(self, request: namespace_pb2.CompactRequest, call: Call) -> namespace_pb2.CompactResponse:
        name, revision = request.namespace, request.revision
        checks = Checks(self._limits, call.caller)
        checks.namespace("namespace", name)
        checks.everywhere(ADMIN)
        checks.count("revision", revision)
        checks.finish()
        response = namespace_pb2.CompactResponse()
        response.floor = await self._store.compact(name, revision)
        return response

    async def Fork(self, request: namespace_pb2.ForkRequest, call: Call) -> namespace_pb2.ForkResponse:
        _, outcome = await submit(self._committer, self._limits, request, call, actions.fork, namespace="fork")
        response = namespace_pb2.ForkResponse()
        match outcome.results:
            case [NamespaceInfo() as begun]:
                wire.fill_namespace(response.namespace, begun)
        return response

    async def Merge(self, request: namespace_pb2.MergeRequest, call: Call) -> namespace_pb2.MergeResponse:
        _, outcome = await submit(self._committer, self._limits, request, call, actions.merge)
        response = namespace_pb2.MergeResponse(merged=outcome.committed, revision=outcome.revision)
        match outcome.results:
            case [MergeResult(put, deleted, conflicts, conflict_count)]:
                response.put = put
                response.deleted = deleted
                response.conflict_count = conflict_count
                wire.fill_conflicts(response, conflicts)
        return response


def _is_visible(name: str, caller: Caller) -> bool:
    return caller.rights(name).may_somewhere(ANY)


def _hide_parent(shown: namespace_pb2.Namespace, caller: Caller) -> None:
    """Take the name away of what is of no concern to a caller."""
    if shown.parent and not _is_visible(shown.parent, caller):
        shown.parent = ""
        shown.fork_revision = 0
