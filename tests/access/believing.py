"""Callers of a server in the test's own process who are whom they say they are."""

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from comity_server.access.caller import Identity
from tests.wire.calls import Refusal, read_refusal
from tests.wire.inprocess import Running


class Believing:
    """Finds out who calls by what is said."""

    def identify(self, metadata: Any, auth_context: Any, guess: Any) -> tuple[Identity, object]:
        return Identity(dict(metadata).get("principal", "")), None

    def check(self, identity: Identity, proof: object) -> None:
        """It holds."""


def as_principals(running: Running) -> None:
    """From now on a caller is whom its metadata names, as by `by`."""
    running.server._access.gate._identify = Believing()


def by(principal: str) -> tuple[tuple[str, str], ...]:
    return (("principal", principal),)


async def refused(call: Awaitable[Any]) -> Refusal:
    """What a call says that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return read_refusal(failed.value)
