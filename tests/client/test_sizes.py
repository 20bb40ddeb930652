"""Messages as large as a server may be set to take and to send."""

import re

import pytest

import comity
from tests import servers

MIB = 1024 * 1024
LARGE = 20 * MIB


async def test_what_is_larger_than_a_message_may_be_is_said_in_plain_words(
    server: servers.Server, namespace: str
) -> None:
    async with comity.connect(server.address, namespace=namespace) as state:
        with pytest.raises(comity.ResourceExhausted) as refused:
            await state.put("k", bytes(6 * MIB))
        assert re.fullmatch(
            r"the request has 6291\d{3} bytes, and the server takes no more than 5242880 in one message",
            refused.value.message,
        )
        assert await state.get("k") is None
        await state.put("k", bytes(MIB))


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
