"""Blame: which commit wrote each key last, in pages."""

from comity.v1 import state_pb2
from comity_server.access.caller import Caller
from comity_server.access.rights import READ
from comity_server.limits import Limits
from comity_server.record import MOD_REVISION
from comity_server.services import pages, wire
from comity_server.services.validate import Checks
from comity_server.stores.protocol import Store


async def read(
    store: Store, limits: Limits, caller: Caller, request: state_pb2.BlameRequest
) -> state_pb2.BlameResponse:
    """One page: of a listing, with what is known of the commit that each of its entries is of."""
    checks = Checks(limits, caller)
    namespace, prefix, revision = request.namespace, request.prefix, request.revision
    checks.namespace("namespace", namespace)
    checks.prefix("prefix", prefix, READ)
    checks.count("revision", revision)
    limit = checks.page_size("page_size", request.page_size)
    checks.finish()
    position = await store.position(namespace)
    after = ""
    if place := pages.unseal(request, int, str, str):
        revision, after, epoch = place
        pages.check_epoch(epoch, position)
    # What is said of a commit may be longer than an entry: half of the room is left for it.
    page = await store.list(
        namespace,
        prefix,
        after=after,
        limit=limit,
        max_bytes=limits.page_bytes // 2,
        keys_only=True,
        revision=revision,
    )
    known = await store.provenance(namespace, sorted({entry[MOD_REVISION] for entry in page.entries}))
    response = state_pb2.BlameResponse(revision=page.revision)
    next_after = page.next_after
    size = 0
    for entry in page.entries:
        if size > limits.page_bytes:
            next_after = response.attributions[-1].entry.key
            break
        attribution = response.attributions.add()
        wire.fill_entry(attribution.entry, entry, keys_only=True)
        said = known.get(entry[MOD_REVISION])
        if said is not None:
            attribution.author, attribution.message, attribution.trace_parent = said
        size += attribution.ByteSize()
    if next_after is not None:
        response.next_page_token = pages.seal(request, [page.revision, next_after, position.epoch])
    return response
