"""Who shows wrong tokens again and again is slowed down, and nobody else is."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from comity.v1 import state_pb2 as s
from comity_server.access.buckets import Rate
from comity_server.access.guesses import Guesses
from comity_server.access.jwts import Jwts
from comity_server.access.tokens import new_token
from comity_server.errors import RateLimited
from tests.access.bearers import bearing, signed, write_jwks, write_tokens
from tests.access.believing import refused
from tests.wire.calls import TIMEOUT, Metadata, Refusal
from tests.wire.inprocess import Running, run

GET = s.GetRequest(namespace="n", key="k")
NEVER = 1e-6  # a second
TOKEN = new_token()


class Site(NamedTuple):
    running: Running

    async def get(self, metadata: Metadata) -> None:
        await self.running.state.Get(GET, timeout=TIMEOUT, metadata=metadata)

    async def refused(self, metadata: Metadata) -> Refusal:
        return await refused(self.running.state.Get(GET, timeout=TIMEOUT, metadata=metadata))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A server that bears one wrong token of an address."""
    write_tokens(tmp_path / "tokens", planner=TOKEN)
    write_jwks(tmp_path / "jwks")
    files = {"tokens": tmp_path / "tokens", "jwks": tmp_path / "jwks"}
    async with run(rate_unauthenticated=NEVER, **files) as running:
        yield Site(running)


def forged(principal: str) -> str:
    token = signed(principal)
    other = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(jwt.decode(token, options={"verify_signature": False}), other, "ES256", headers={"kid": "key"})


async def test_who_shows_wrong_tokens_is_shed_before_they_are_looked_into(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = signed("ann")
    await site.get(bearing(remembered))
    first = await site.refused(bearing(forged("eve")))
    assert first.code is grpc.StatusCode.UNAUTHENTICATED
    monkeypatch.delattr(Jwts, "_verify")
    for token in (forged("eve"), new_token(), signed("bob")):
        shed = await site.refused(bearing(token))
        assert (shed.code, shed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert (shed.metadata["limit"], shed.metadata["of"]) == ("rate_unauthenticated", "127.0.0.1")
        assert shed.retry_after
    assert site.running.server._tally.shed == {"rate_unauthenticated": 3}
    # Who is known already goes on.
    for token in (TOKEN, remembered):
        await site.get(bearing(token))


async def test_who_shows_nothing_or_what_is_right_does_not_guess(site: Site) -> None:
    for number in range(3):
        assert (await site.refused(())).metadata["problem"] == "missing"
        await site.get(bearing(TOKEN))
        await site.get(bearing(signed(f"p{number}")))
    assert (await site.refused(bearing("no token"))).code is grpc.StatusCode.UNAUTHENTICATED


def test_addresses_are_counted_apart_and_forgiven() -> None:
    now = 0.0
    guesses = Guesses(Rate(2.0, 3.0), lambda: now)
    for _ in range(3):
        guesses.check("one")
        guesses.count("one")
    with pytest.raises(RateLimited, match=re.escape("unauthenticated one has 2 operations a second")) as limited:
        guesses.check("one")
    assert limited.value.seconds == pytest.approx(0.5)
    guesses.check("another")
    now = 0.5
    guesses.check("one")


def test_without_a_rate_nothing_is_counted() -> None:
    guesses = Guesses()
    for _ in range(1000):
        guesses.count("one")
    guesses.check("one")
