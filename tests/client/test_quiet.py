"""What gRPC writes to the standard error of a program that uses the client: nothing, unless the program wants it."""

import os
import subprocess
import sys
from pathlib import Path

from tests import servers
from tests.authority import Authority

PROGRAM = """
import asyncio, os, sys

address, ca = sys.argv[1:]
before = dict(os.environ)
import comity
assert dict(os.environ) == before

async def main():
    async with comity.connect(address, tls=comity.TLS(ca), timeout=0.5) as state:
        await state.get("a")

try:
    asyncio.run(main())
except comity.Unavailable as error:
    assert error.reason == "TLS_FAILED", error
else:
    raise SystemExit("it trusts anybody")
"""


def test_what_handshakes_that_fail_write(tmp_path: Path) -> None:
    pair = Authority().server().write(tmp_path)
    ca = Authority().write(tmp_path)
    env = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    with servers.start("--tls-cert", str(pair.cert), "--tls-key", str(pair.key)) as server:
        unset, info = (
            subprocess.run(
                [sys.executable, "-c", PROGRAM, server.address, str(ca)],
                env=env | said,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stderr
            for said in ({}, {"GRPC_VERBOSITY": "INFO"})
        )
    assert unset == ""
    assert "Handshake failed" in info
