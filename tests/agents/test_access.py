"""Agents of a server that knows who calls, by tokens and over TLS."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

import comity
from comity.agents import Supervisor
from tests import servers
from tests.agents import members
from tests.authority import Authority
from tests.client.secured import tokens

TOKEN = f"cmt_{'a' * 43}"

Connect = Callable[..., comity.Client]


@pytest.fixture
async def connect(tmp_path: Path, namespace: str) -> AsyncIterator[Connect]:
    authority = Authority()
    ca, pair = authority.write(tmp_path), authority.server().write(tmp_path)
    known = tmp_path / "tokens"
    known.write_text(tokens(team=TOKEN))
    with servers.start(
        *("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), "--tokens", str(known)),
    ) as server:
        yield lambda **options: comity.connect(server.address, namespace=namespace, tls=comity.TLS(ca), **options)


async def test_a_process_calls_as_its_supervisor_does(connect: Connect) -> None:
    async with connect(token=TOKEN, author="team") as state, Supervisor(state, "boss") as supervisor:
        child = await supervisor.spawn(members.stay, name="stayer", mode="process")
        process = psutil.Process((await child.ready()).pid)
        assert not any(TOKEN in text for text in (*process.cmdline(), *process.environ().values()))
        authors = {commit.author async for commit in state.history()}
        assert authors == {"team/boss", "team/boss/stayer"}
    async with connect(token=TOKEN) as state, Supervisor(state, "chief") as supervisor:
        await (await supervisor.spawn(members.stay, name="sitter")).ready()
        assert "team" in {commit.author async for commit in state.history()}


async def test_a_token_that_no_process_can_be_given_is_refused(connect: Connect) -> None:
    async with connect(token=lambda: TOKEN) as state, Supervisor(state, "boss") as supervisor:
        with pytest.raises(TypeError, match="the function of the token"):
            await supervisor.spawn(members.stay, name="stayer", mode="process")
