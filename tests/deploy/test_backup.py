"""The drill of docs/backup.md, line by line, while somebody writes: what is restored is the state of one moment, with
all that was answered before it."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from comity import sync
from comity_server.limits import Limits
from comity_server.record import VALUE
from comity_server.stores.sqlite.check import check
from comity_server.stores.url import open_store
from tests import servers
from tests.deploy.deployed import ROOT
from tests.redis_servers import free_port

SECONDS = 100
KEYS = 50  # that are written in each commit
PAUSE = 0.02  # seconds between commits: they are to be many, but to leave room for the drill


class Writer(threading.Thread):
    """Writes round after round, each in one commit: the number of the round in each of its keys."""

    def __init__(self, address: str, first: int) -> None:
        super().__init__(daemon=True)
        self.answered = 0
        self.rounds = threading.Event()
        self._address = address
        self._first = first
        self._over = threading.Event()

    def run(self) -> None:
        with sync.connect(self._address, namespace="drill") as state:
            while not self._over.wait(PAUSE):
                self.answered = self._write(state)
                if self.answered == self._first:
                    self.rounds.set()

    def _write(self, state: sync.Client) -> int:
        number = self.answered + 1

        def put(tx: sync.Transaction) -> None:
            for key in range(KEYS):
                tx.put(f"round/{key}", number)

        state.transact(put)
        return number

    def end(self) -> None:
        self._over.set()
        self.join(SECONDS)


def drill(store: Path, copy: Path, port: int) -> str:
    """The lines of the page, with its paths and its port where a test may have them."""
    found: list[str] = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "backup.md").read_text(), re.DOTALL)
    (lines,) = found
    for there, here in (("/var/lib/comity/comity.db", store), ("/var/backups/comity/drill.db", copy)):
        assert there in lines
        lines = lines.replace(there, str(here))
    return lines.replace("7190", str(port))


async def test_drill(tmp_path: Path) -> None:
    store, copy = tmp_path / "comity.db", tmp_path / "drill.db"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with servers.start("--store", f"sqlite:{store}") as server:
        writer = Writer(server.address, first=20)
        writer.start()
        assert writer.rounds.wait(SECONDS)
        before = writer.answered
        ran = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-euc", drill(store, copy, free_port())],
            env=servers.environment({"PATH": path, "COMITY_STORE": None, "COMITY_LISTEN": None}),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        writer.end()
    assert "drill" in ran.stdout.splitlines()[-1]
    assert check(copy).problems == []

    store_of_copy = open_store(f"sqlite:{copy}", Limits())
    await store_of_copy.open()
    try:
        page = await store_of_copy.list("drill", "round/", limit=KEYS, max_bytes=10**6)
        (round_,) = {json.loads(entry[VALUE]) for entry in page.entries}  # the same in each key: of one moment
        assert before <= round_ <= writer.answered
        assert page.revision == round_
    finally:
        await store_of_copy.close()
