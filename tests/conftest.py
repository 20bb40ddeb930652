"""What every test may ask for: a running server, and a namespace that is the test's own."""

import itertools
import os
import re
import signal
import uuid
from collections.abc import Iterator

import pytest

from tests import servers
from tests.redis_servers import RedisCluster, RedisServer, Replicated
from tests.scenarios.places import KINDS

# A shell that starts the tests in the background has them ignore SIGINT, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


TOLD = ("servers_mib_per_hour", "clients_mib_per_hour", "writes", "blows", "failed_calls", "longest_call_seconds")
SHARED = ("redis_cluster", "replicated", "busy_server")  # fixtures that take long to make


@pytest.hookimpl(trylast=True)  # when all have their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what is long to `make soak`; begin with what mostly waits; and have one process run all the tests that
    share what takes long to make."""
    if os.environ.get("COMITY_SOAK") != "1":
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    items.sort(key=lambda item: item.get_closest_marker("first") is None)
    for item in items:
        for name in SHARED:
            if name in getattr(item, "fixturenames", ()) or name.replace("_", "-") in item.nodeid:
                item.add_marker(pytest.mark.xdist_group(name))
                break


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long the core scenarios took over each store, and what tests of time have measured: it decides
    nothing."""
    seconds: dict[str, float] = {}
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport) and report.when == "call":
            told = [f"{name} {value}" for name, value in report.user_properties if name in TOLD]
            if told:
                terminalreporter.write_line(f"{report.nodeid}: {', '.join(told)}")
        if isinstance(report, pytest.TestReport) and "scenarios/" in report.nodeid and "core" in report.keywords:
            kind = next(kind for kind in KINDS if kind in re.split(r"[][-]", report.nodeid))
            seconds[kind] = seconds.get(kind, 0.0) + report.duration
    if seconds:
        took = ", ".join(f"{kind} {seconds[kind]:.1f} s" for kind in sorted(seconds))
        terminalreporter.write_line(f"core scenarios, with the start of their servers: {took}")


@pytest.fixture(scope="session")
def server() -> Iterator[servers.Server]:
    """A `comity serve` over `memory:` that all tests share: it must go on after each of them."""
    with servers.start() as running:
        yield running


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A redis-server that tests share: each takes a prefix of its own, as by `redis_url`."""
    with RedisServer() as running:
        yield running


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A store in the shared redis-server that no other test uses."""
    return f"{redis_server.url}?prefix=t-{uuid.uuid4().hex}"


@pytest.fixture
def namespace() -> str:
    """The name of a namespace that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """Six nodes, that all tests share."""
    with RedisCluster() as running:
        yield running


@pytest.fixture(scope="session")
def replicated() -> Iterator[Replicated]:
    """A primary with replicas and Sentinels, that all tests share."""
    with Replicated() as running:
        yield running
