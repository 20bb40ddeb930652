"""Grants and ends leases. The end of one is the commit that deletes its keys; one that has none makes no revision."""

from dataclasses import replace

from comity_server.errors import LeaseNotFound, PermissionDenied, QuotaExceeded
from comity_server.model import Action, Cause, DeleteResult, Expire, Grant, Lease, Outcome, Revoke
from comity_server.names import owns
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.operations import KEY_STEPS, Work
from comity_server.turns import Pace


def grant(draft: Draft, action: Grant) -> Outcome:
    """A commit that changes no key, and whose time names the lease. Raises QuotaExceeded."""
    draft.check_room()
    if len(draft.leases) >= draft.limits.leases:
        raise QuotaExceeded("leases", draft.limits.leases)
    lease = Lease(draft.time, action.ttl, action.author, draft.time)
    said = action if action.message else replace(action, message=f"grant lease {lease.id}")
    draft.add(said, {}, keys=0, size_bytes=0, lease=lease)
    return Outcome(True, draft.revision, (lease,))


async def revoke(draft: Draft, action: Revoke, pace: Pace) -> Outcome:
    """Lets others in meanwhile. Raises LeaseNotFound, or PermissionDenied if the lease is not that of who has to have
    it."""
    lease = draft.leases.find(action.lease_id)
    if lease is None:
        raise LeaseNotFound(action.lease_id, draft.base.name)
    if action.principal is not None and not owns(action.principal, lease.author):
        raise PermissionDenied(action.principal, "WRITE", draft.base.name, lease_id=str(lease.id))
    work = await _work(draft, action.lease_id, Cause.CLIENT, pace)
    deleted = await _end(draft, action.lease_id, work, action, f"revoke lease {action.lease_id}", pace)
    return Outcome(True, draft.revision, (DeleteResult(deleted),))


async def expire(draft: Draft, action: Expire, pace: Pace) -> Outcome:
    """Each lease that has run out ends by a commit of its own. Lets others in meanwhile. No result: none had."""
    ended = deleted = 0
    for id in action.lease_ids:
        if (lease := _run_out(draft, id)) is None:
            continue
        work = await _work(draft, id, Cause.LEASE_EXPIRY, pace)
        if _run_out(draft, id) is None:  # it was renewed meanwhile
            continue
        of = f" of {lease.author}" if lease.author else ""
        ended += 1
        deleted += await _end(draft, id, work, action, f"lease {id}{of} expired", pace, expired=True)
    return Outcome(True, draft.revision, (DeleteResult(deleted),) if ended else ())


def _run_out(draft: Draft, id: int) -> Lease | None:
    """A lease that lives, and should not any more."""
    lease, deadline = draft.leases.find(id), draft.leases.deadline(id)
    return lease if deadline is not None and deadline <= draft.clock else None


async def _work(draft: Draft, id: int, cause: Cause, pace: Pace) -> Work:
    """The end of the keys of a lease."""
    work = Work(draft)
    entries = [entry for key in sorted(draft.leases.keys(id)) if (entry := work.live(key)) is not None]
    draft.steps += KEY_STEPS * len(entries)
    await work.delete_all(entries, pace, cause)
    return work


async def _end(
    draft: Draft, id: int, work: Work, action: Action, message: str, pace: Pace, *, expired: bool = False
) -> int:
    """Returns how many keys were deleted."""
    draft.end_lease(id, expired=expired)
    if work.events:
        said = action if action.message else replace(action, message=message)
        await draft.add_paced(said, work.events, pace, keys=work.keys, size_bytes=work.size_bytes)
    return len(work.events)
