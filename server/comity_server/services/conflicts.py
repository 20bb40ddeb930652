"""What a put or a delete is answered with whose conditions do not hold."""

from comity_server.errors import Conflict
from comity_server.model import Outcome, Transaction
from comity_server.record import MOD_REVISION, VERSION


def conflict(transaction: Transaction, outcome: Outcome) -> Conflict:
    """The error, of the first condition that failed. Without the value: trailers are small."""
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
