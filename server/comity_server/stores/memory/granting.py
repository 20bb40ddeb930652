"""Grants and ends leases. The end of one is the commit that deletes its keys; one that has none makes no revision."""

from dataclasses import replace

from comity_server.errors import LeaseNotFound, PermissionDenied, QuotaExceeded
from comity_server.model import Action, Cause, DeleteResult, Expire, Grant, Lease, Outcome, Revoke
from comity_server.names import owns
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.operations import Work


def grant(draft: Draft, action: Grant) -> Outcome:
    """A commit that changes no key, and whose time names the lease. Raises QuotaExceeded."""
    draft.check_room()
    if len(draft.leases) >= draft.limits.leases:
        raise QuotaExceeded("leases", draft.limits.leases)
    lease = Lease(draft.time, action.ttl, action.author, draft.time)
    said = action if action.message else replace(action, message=f"grant lease {lease.id}")
    draft.add(said, {}, keys=0, size_bytes=0, lease=lease)
    return Outcome(True, draft.revision, (lease,))


def revoke(draft: Draft, action: Revoke) -> Outcome:
    """Raises LeaseNotFound, or PermissionDenied if the lease is not that of who has to have it."""
    lease = draft.leases.find(action.lease_id)
    if lease is None:
        raise LeaseNotFound(action.lease_id, draft.base.name)
    if action.principal is not None and not owns(action.principal, lease.author):
        raise PermissionDenied(action.principal, "WRITE", draft.base.name, lease_id=str(lease.id))
    deleted = _end(draft, action.lease_id, action, f"revoke lease {action.lease_id}", Cause.CLIENT)
    return Outcome(True, draft.revision, (DeleteResult(deleted),))


def expire(draft: Draft, action: Expire) -> Outcome:
    """Each lease that has run out ends by a commit of its own. No result: none had."""
    ended = deleted = 0
    for id in action.lease_ids:
        lease, deadline = draft.leases.find(id), draft.leases.deadline(id)
        if lease is None or deadline is None or deadline > draft.clock:
            continue
        of = f" of {lease.author}" if lease.author else ""
        ended += 1
        deleted += _end(draft, id, action, f"lease {id}{of} expired", Cause.LEASE_EXPIRY)
    return Outcome(True, draft.revision, (DeleteResult(deleted),) if ended else ())


def _end(draft: Draft, id: int, action: Action, message: str, cause: Cause) -> int:
    """Returns how many keys were deleted."""
    work = Work(draft)
    work.expire(draft.leases.keys(id), cause)
    draft.end_lease(id, expired=cause is Cause.LEASE_EXPIRY)
    if work.events:
        said = action if action.message else replace(action, message=message)
        draft.add(said, work.events, keys=work.keys, size_bytes=work.size_bytes)
    return len(work.events)
