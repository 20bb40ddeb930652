"""What gRPC is told of connections, by each of its servers."""

from collections import Counter

from comity_server import probes, server
from comity_server.settings import Settings


def test_nothing_is_said_twice() -> None:
    settings = Settings()
    for options in (server.grpc_options(settings), probes._options(settings)):
        names = Counter(name for name, _ in options)
        assert names["grpc.max_connection_idle_ms"] == 1
        assert set(names.values()) == {1}
