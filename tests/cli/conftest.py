"""The command `comity` as a process, against the shared server and the test's own namespace."""

import pytest

from tests.cli.processes import Comity
from tests.servers import Server


@pytest.fixture
def comity(server: Server, namespace: str) -> Comity:
    return Comity(server.address, namespace)
