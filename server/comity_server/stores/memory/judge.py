"""Judges a transaction as if it were alone: its request id, its conditions, its operations, the quotas.

What comes of it is added to a Draft, which is applied as a whole afterwards; a store that is durable writes it down in
between. Each transaction sees what those before it in the draft wrote, and one that fails leaves nothing behind.
"""

from comity_server.errors import RequestIdReused, StateError
from comity_server.model import Outcome, RequestId, Transaction
from comity_server.stores.memory.conditions import failed_conditions
from comity_server.stores.memory.draft import Draft
from comity_server.stores.memory.operations import Work


def judge(draft: Draft, transaction: Transaction) -> Outcome | StateError:
    """How the transaction ends. What it changes is in the draft then."""
    request = transaction.request_id
    try:
        if request is None:
            return _apply(draft, transaction)
        fingerprint = transaction.fingerprint()
        outcome = _find(draft, request, fingerprint)
        if outcome is None:
            before = draft.revision
            outcome = _apply(draft, transaction)
            if draft.revision != before:
                draft.name(request, fingerprint, outcome)
    except StateError as error:
        return error
    return outcome


def _find(draft: Draft, request: RequestId, fingerprint: int) -> Outcome | None:
    outcome = draft.base.requests.find(request, fingerprint, draft.now)
    if outcome is not None:
        return outcome
    named = draft.named.get((request.client, request.sequence))
    if named is None:
        return None
    if named.fingerprint != fingerprint:
        raise RequestIdReused(request.sequence)
    return named.outcome


def _apply(draft: Draft, transaction: Transaction) -> Outcome:
    draft.begin()
    failed = failed_conditions(draft, transaction.conditions)
    work = Work(draft)
    results = work.run(transaction.otherwise if failed else transaction.then)
    if work.events:
        work.check_quotas()
        draft.add(transaction, work.events, keys=work.keys, size_bytes=work.size_bytes)
    return Outcome(not failed, draft.revision, results, failed)
