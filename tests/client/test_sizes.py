"""Messages as large as a server may be set to take and to send."""

import comity
from tests import servers

MIB = 1024 * 1024
LARGE = 20 * MIB


async def test_the_client_carries_what_the_server_allows(namespace: str) -> None:
    bounds = ("--limit-value-bytes", str(LARGE), "--limit-transaction-bytes", str(2 * LARGE))
    with servers.start(*bounds) as own:
        async with comity.connect(own.address, namespace=namespace) as state:
            await state.put("k", bytes(LARGE))
            entry = await state.get("k")
            assert entry is not None
            assert len(entry.data) == LARGE
            async for event in state.watch(from_revision=1):
                assert isinstance(event, comity.Event)
                assert len(event.entry.data) == LARGE
                break
