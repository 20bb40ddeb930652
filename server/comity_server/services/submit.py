"""The way of a write from its message to the committer."""

from collections.abc import Callable
from typing import Any, TypeVar

from comity_server.committer import Committer
from comity_server.limits import Limits
from comity_server.model import Action, Outcome, Transaction
from comity_server.services.call import Call
from comity_server.services.requests import Metadata
from comity_server.services.validate import Checks

Request = TypeVar("Request", bound=Any)
W = TypeVar("W", bound=Transaction | Action)


async def submit(
    committer: Committer,
    limits: Limits,
    request: Request,
    call: Call,
    build: Callable[[Request, Metadata, Checks], W],
    *,
    namespace: str = "namespace",
) -> tuple[W, Outcome]:
    """Check a write, hand it to the committer, and wait for its end.

    Args:
        build: makes the write of the request.
        namespace: the field of the request that names the namespace which the write changes.
    """
    checks = Checks(limits, call.caller)
    name: str = getattr(request, namespace)
    checks.namespace(namespace, name)
    write = build(request, call.metadata, checks)
    checks.finish()
    outcome = await committer.submit(name, write, deadline=call.deadline)
    call.meter.charge(outcome.searched, 0)
    return write, outcome
