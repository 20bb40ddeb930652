"""Whatever bytes come in on a connection: it ends, the server does not, and nobody else notices."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.conversations import GREETINGS, conversations
from tests.fuzz.examples import MARKS, drawn
from tests.fuzz.fuzzed import Fuzzed, fuzzing
from tests.wire.calls import TIMEOUT

pytestmark = MARKS
READ_BYTES = 1 << 16


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Fuzzed]:
    with fuzzing() as running:
        yield running


def converse(address: str, sent: bytes) -> None:
    """Send bytes on a connection of their own, say that they are all, and read until the server ends it."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), TIMEOUT) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(READ_BYTES):
                pass
        except TimeoutError:
            raise
        except OSError:  # it was ended before all was sent
            pass


@pytest.mark.parametrize("greeting", GREETINGS, ids=range(len(GREETINGS)))
def test_another_protocol_is_turned_away(fuzzed: Fuzzed, greeting: bytes) -> None:
    with fuzzed.unnoticed():
        converse(fuzzed.server.address, greeting)


def test_any_bytes_are_borne(fuzzed: Fuzzed) -> None:
    @drawn(50, 5_000)
    @given(st.one_of(conversations(), conversations(), conversations(), st.binary(max_size=200)))
    def whatever_is_sent(sent: bytes) -> None:
        with fuzzed.unnoticed():
            converse(fuzzed.server.address, sent)

    whatever_is_sent()
