"""Names for revisions, and what can be done with them: returning to one, comparing two."""

from collections.abc import AsyncIterator, Mapping

from . import convert, listing, model, requests
from .arguments import built
from .base import Base
from .leases.guard import Guard
from .request_ids import RequestId
from .v1 import checkpoint_pb2

__all__ = ["Checkpoints"]


class Checkpoints(Base):
    """The part of a client that is about the checkpoints of its namespace, and about its revisions."""

    async def checkpoint(
        self,
        name: str,
        *,
        revision: int = 0,
        labels: Mapping[str, str] | None = None,
        message: str = "",
        request_id: RequestId | None = None,
        guard: Guard | None = None,
        timeout: float | None = None,
    ) -> model.Checkpoint:
        """Name a revision, which keeps it readable whatever is compacted. Nothing is copied.

        name: [A-Za-z0-9][A-Za-z0-9._-]{0,127}, with a letter in it.
        revision: 0 is the newest. Raises Compacted below the floor, OutOfRange above the newest.
        labels: up to 64, keys of 1 to 63 bytes, values of up to 255 bytes; to find it by.
        message: why, kept with the checkpoint.
        request_id, guard: as of `put`.

        Raises AlreadyExists if the name is taken, NotFound if there is no such namespace.
        """
        request = built(
            checkpoint_pb2.CheckpointRequest, namespace=self.namespace, name=name, revision=revision, labels=labels
        )
        response = await self._write(lambda to: to.checkpoints.Checkpoint, request, message, timeout, request_id, guard)
        return convert.checkpoint(response.checkpoint)

    async def get_checkpoint(self, name: str, *, timeout: float | None = None) -> model.Checkpoint:
        """The checkpoint of this name. Raises NotFound."""
        request = built(checkpoint_pb2.GetCheckpointRequest, namespace=self.namespace, name=name)
        response = await self._calls.read(lambda to: to.checkpoints.GetCheckpoint, request, self._timeout(timeout))
        return convert.checkpoint(response.checkpoint)

    def checkpoints(
        self, labels: Mapping[str, str] | None = None, *, page_size: int = 0, timeout: float | None = None
    ) -> AsyncIterator[model.Checkpoint]:
        """The checkpoints in the order of their names: `async for mark in state.checkpoints()`.

        labels: only those that have all of these.
        page_size: the most checkpoints a call to the server brings; 0 is the server's choice, 1,000 its limit.
        timeout: of each page.

        Raises NotFound, as it is read, if there is no such namespace: nothing was ever written to it.
        """
        request = built(
            checkpoint_pb2.ListCheckpointsRequest, namespace=self.namespace, labels=labels, page_size=page_size
        )
        return listing.checkpoints(self._calls, request, self._timeout(timeout))

    async def delete_checkpoint(
        self,
        name: str,
        *,
        request_id: RequestId | None = None,
        guard: Guard | None = None,
        timeout: float | None = None,
    ) -> None:
        """Delete the name; its revision is readable for as long as others are.

        request_id, guard: as of `put`. Raises NotFound.
        """
        request = built(checkpoint_pb2.DeleteCheckpointRequest, namespace=self.namespace, name=name)
        await self._write(
            lambda to: to.checkpoints.DeleteCheckpoint,
            request,
            "",
            timeout,
            request_id,
            guard,
        )

    async def restore(
        self,
        ref: requests.Ref,
        prefix: str = "",
        *,
        dry_run: bool = False,
        if_revision: int | None = None,
        message: str = "",
        request_id: RequestId | None = None,
        guard: Guard | None = None,
        timeout: float | None = None,
    ) -> model.RestoreResult:
        """Make all keys under a prefix what they were at a revision, in one commit of ordinary events.

        Keys get back their value and content type, and live by no lease. To undo it, restore to the revision before.

        ref: a revision, a checkpoint or its name.
        prefix: only keys that begin with this; empty: every key.
        dry_run: change nothing, and answer with what would change.
        if_revision: only if the namespace's newest revision is this. Raises Conflict.
        message, request_id, guard: as of `put`.

        Raises NotFound if there is no such namespace or checkpoint; Compacted below the floor, OutOfRange above the
        newest revision; TypeError for what names no revision.
        """
        request = built(
            checkpoint_pb2.RestoreRequest,
            namespace=self.namespace,
            ref=requests.ref(ref),
            prefix=prefix,
            dry_run=dry_run,
            if_revision=if_revision,
        )
        response = await self._write(lambda to: to.checkpoints.Restore, request, message, timeout, request_id, guard)
        return convert.restore_result(response)

    def diff(
        self,
        base: requests.Ref,
        target: requests.Ref | None = None,
        prefix: str = "",
        *,
        keys_only: bool = False,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> listing.DiffListing:
        """The keys that differ between two revisions, in order: `async for difference in state.diff("before")`.

        base, target: a revision, a checkpoint or its name; target None: the newest revision.
        prefix: only keys that begin with this; empty: every key.
        page_size: the most keys a call to the server brings; 0 is the server's choice, 1,000 its limit.
        keys_only: leave the values out.
        timeout: of each page.

        Raises TypeError for what names no revision. What reading raises, `DiffListing` says.
        """
        request = built(
            checkpoint_pb2.DiffRequest,
            namespace=self.namespace,
            base=requests.ref(base),
            target=None if target is None else requests.ref(target),
            prefix=prefix,
            keys_only=keys_only,
            page_size=page_size,
        )
        return listing.DiffListing(self._calls, request, self._timeout(timeout))
