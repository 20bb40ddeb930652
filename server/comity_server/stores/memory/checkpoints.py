"""Makes and drops checkpoints. A checkpoint pins a revision, which costs the same whatever there is at it."""

from comity_server.errors import CheckpointExists, CheckpointNotFound, NamespaceNotFound, QuotaExceeded
from comity_server.model import Checkpoint, DropCheckpoint, MakeCheckpoint, Outcome
from comity_server.stores.memory.draft import Draft


def make_checkpoint(draft: Draft, action: MakeCheckpoint) -> Outcome:
    """Raises NamespaceNotFound, CheckpointExists, QuotaExceeded, Compacted, RevisionInFuture."""
    if not draft.revision or (not draft.base.create_time and not draft.commits):
        raise NamespaceNotFound(draft.base.name)
    known = draft.checkpoint(action.name)
    if known is not None:
        raise CheckpointExists(action.name, known.revision)
    if draft.count_checkpoints() >= draft.limits.checkpoints:
        raise QuotaExceeded("checkpoints", draft.limits.checkpoints)
    revision = draft.readable(action.revision or draft.revision)
    made = Checkpoint(
        action.name,
        revision,
        draft.time,
        action.author,
        action.message,
        action.labels,
        *draft.totals(revision),
    )
    draft.set_checkpoint(action.name, made)
    return Outcome(True, draft.revision, (made,))


def drop_checkpoint(draft: Draft, action: DropCheckpoint) -> Outcome:
    """Raises CheckpointNotFound."""
    if draft.checkpoint(action.name) is None:
        raise CheckpointNotFound(action.name, draft.base.name)
    draft.set_checkpoint(action.name, None)
    return Outcome(True, draft.revision)
