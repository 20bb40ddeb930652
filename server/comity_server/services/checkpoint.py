"""CheckpointService: names for revisions, returning to one, comparing two."""

from comity.v1 import checkpoint_pb2
from comity_server.access.rights import READ
from comity_server.committer import Committer
from comity_server.limits import Limits
from comity_server.model import Checkpoint, RestoreResult
from comity_server.services import actions, pages, wire
from comity_server.services.call import Call
from comity_server.services.submit import submit
from comity_server.services.validate import Checks
from comity_server.stores.protocol import Store


class CheckpointService:
    """Handlers of `comity.v1.CheckpointService`. See the proto for what each promises."""

    def __init__(self, store: Store, committer: Committer, limits: Limits) -> None:
        self._store = store
        self._committer = committer
        self._limits = limits

    async def Checkpoint(
        self, request: checkpoint_pb2.CheckpointRequest, call: Call
    ) -> checkpoint_pb2.CheckpointResponse:
        _, outcome = await submit(self._committer, self._limits, request, call, actions.make_checkpoint)
        response = checkpoint_pb2.CheckpointResponse()
        match outcome.results:
            case [Checkpoint() as made]:
                wire.fill_checkpoint(response.checkpoint, made)
        return response

    async def GetCheckpoint(
        self, request: checkpoint_pb2.GetCheckpointRequest, call: Call
    ) -> checkpoint_pb2.GetCheckpointResponse:
        namespace, name = request.namespace, request.name
        checks = Checks(self._limits, call.caller)
        checks.namespace("namespace", namespace)
        checks.checkpoint("name", name)
        checks.somewhere(READ)
        checks.finish()
        await self._store.namespace(
            namespace
        )  # that it does not exist is another error than that the checkpoint does not
        response = checkpoint_pb2.GetCheckpointResponse()
        wire.fill_checkpoint(response.checkpoint, await self._store.checkpoint(namespace, name))
        return response

    async def ListCheckpoints(
        self, request: checkpoint_pb2.ListCheckpointsRequest, call: Call
    ) -> checkpoint_pb2.ListCheckpointsResponse:
        namespace = request.namespace
        checks = Checks(self._limits, call.caller)
        checks.namespace("namespace", namespace)
        checks.somewhere(READ)
        labels = dict(checks.labels("labels", request.labels))
        limit = checks.page_size("page_size", request.page_size)
        checks.finish()
        (after,) = pages.unseal(request, str) or [""]
        found = await self._store.checkpoints(namespace, labels, after=after, limit=limit + 1)
        response = checkpoint_pb2.ListCheckpointsResponse()
        size = 0
        for place, checkpoint in enumerate(found):
            if place == limit or size > self._limits.page_bytes:
                response.next_page_token = pages.seal(request, [found[place - 1].name])
                break
            message = response.checkpoints.add()
            wire.fill_checkpoint(message, checkpoint)
            size += message.ByteSize()
        return response

    async def DeleteCheckpoint(
        self, request: checkpoint_pb2.DeleteCheckpointRequest, call: Call
    ) -> checkpoint_pb2.DeleteCheckpointResponse:
        await submit(self._committer, self._limits, request, call, actions.drop_checkpoint)
        return checkpoint_pb2.DeleteCheckpointResponse()

    async def Restore(self, request: checkpoint_pb2.RestoreRequest, call: Call) -> checkpoint_pb2.RestoreResponse:
        _, outcome = await submit(self._committer, self._limits, request, call, actions.restore)
        response = checkpoint_pb2.RestoreResponse(revision=outcome.revision)
        match outcome.results:
            case [RestoreResult(put, deleted, differences)]:
                response.put = put
                response.deleted = deleted
                wire.fill_preview(response, differences)
        return response

    async def Diff(self, request: checkpoint_pb2.DiffRequest, call: Call) -> checkpoint_pb2.DiffResponse:
        namespace, prefix, keys_only = request.namespace, request.prefix, request.keys_only
        checks = Checks(self._limits, call.caller)
        checks.namespace("namespace", namespace)
        base = actions.ref(request, "base", checks, required=True)
        target = actions.ref(request, "target", checks)
        checks.prefix("prefix", prefix, READ)
        limit = checks.page_size("page_size", request.page_size)
        checks.finish()
        position = await self._store.position(namespace)
        after = ""
        if place := pages.unseal(request, int, int, str, str):  # later pages stay with the revisions of the first
            base, target, after, of_epoch = place
            pages.check_epoch(of_epoch, position)
        page = await self._store.diff(
            namespace,
            base,
            target,
            prefix,
            after=after,
            limit=limit,
            max_bytes=self._limits.page_bytes,
            keys_only=keys_only,
        )
        call.meter.charge(page.searched, 0)
        response = checkpoint_pb2.DiffResponse(base_revision=page.base_revision, target_revision=page.target_revision)
        for difference in page.differences:
            wire.fill_difference(response.differences.add(), difference, keys_only)
        if page.next_after is not None:
            place = [page.base_revision, page.target_revision, page.next_after, position.epoch]
            response.next_page_token = pages.seal(request, place)
        return response
