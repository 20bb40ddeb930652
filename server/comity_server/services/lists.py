"""Lists: the entries under a prefix, in pages."""

from comity.v1 import state_pb2
from comity_server.access.caller import Caller
from comity_server.access.rights import READ
from comity_server.limits import Limits
from comity_server.services import pages, wire
from comity_server.services.validate import Checks
from comity_server.stores.protocol import Store


async def read(
    store: Store, limits: Limits, caller: Caller, request: state_pb2.ListRequest, newest: int | None = None
) -> state_pb2.ListResponse:
    """One page.

    Args:
        newest: the revision to read at where the request names none, if that is not the newest.
    """
    checks = Checks(limits, caller)
    namespace, prefix, revision, keys_only = request.namespace, request.prefix, request.revision, request.keys_only
    checks.namespace("namespace", namespace)
    checks.prefix("prefix", prefix, READ)
    checks.count("revision", revision)
    limit = checks.page_size("page_size", request.page_size)
    checks.finish()
    after = ""
    if place := pages.unseal(request, int, str, str):
        revision, after, epoch = place
        pages.check_epoch(epoch, await store.position(namespace))
    elif newest == 0 and not revision:
        return state_pb2.ListResponse(epoch=(await store.position(namespace)).epoch)  # nothing was written yet
    page = await store.list(
        namespace,
        prefix,
        after=after,
        limit=limit,
        max_bytes=limits.page_bytes,
        keys_only=keys_only,
        revision=revision or newest or 0,
    )
    response = state_pb2.ListResponse()
    response.revision = page.revision
    response.epoch = page.epoch
    add = response.entries.add
    for entry in page.entries:
        wire.fill_entry(add(), entry, keys_only)
    if page.next_after is not None:
        response.next_page_token = pages.seal(request, [page.revision, page.next_after, page.epoch])
    return response
