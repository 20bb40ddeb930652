"""What docs/stores.md shows of a Redis is what is in it."""

import os
import sys
from pathlib import Path

import pytest

from tests import servers, terminal
from tests.examples.test_readme import steps
from tests.redis_servers import RedisServer, program_of

DOCS = Path(__file__).parents[2] / "docs" / "stores.md"


@pytest.mark.skipif(program_of("redis-cli") is None, reason="there is no redis-cli")
def test_the_keys_of_a_namespace() -> None:
    with RedisServer() as redis, servers.start("--store", redis.url) as server:
        environment = servers.environment(
            {
                "COMITY_ADDRESS": server.address,
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "LC_ALL": "C",
            }
        )
        ran = 0
        for command, expected in steps(DOCS.read_text()):
            own = command.replace("redis-cli", f"{program_of('redis-cli')} -p {redis.port}")
            assert terminal.plain(terminal.run(["bash", "-c", own], environment)) == expected, command
            ran += 1
        assert ran == 8
