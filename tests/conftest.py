"""What every test may ask for: a running server, and a namespace that is the test's own."""

import signal
import uuid
from collections.abc import Iterator

import pytest

from tests import servers

# A shell that starts the tests in the background has them ignore SIGINT, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[servers.Server]:
    """A `comity serve` over `memory:` that all tests share: it must go on after each of them."""
    with servers.start() as running:
        yield running


@pytest.fixture
def namespace() -> str:
    """The name of a namespace that no other test uses."""
    return f"test-{uuid.uuid4().hex}"
