"""The Python of README.md and of docs/client.md runs, and does what is said beside it."""

import ast
import asyncio
import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import comity
import comity.sync
from comity import Client
from tests import servers
from tests.access.principals import token_of, write_tokens
from tests.authority import Authority
from tests.servers import Server
from tests.waiting import until, wait_until

ROOT = Path(__file__).parents[2]


def samples(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), re.DOTALL | re.MULTILINE)


CLIENT = samples("docs/client.md")
TESTED = (
    *(
        "comity.connect(",
        "comity.TLS(",
        "state.history(",
        "state.increment(",
        "def spend(",
        "def retire(",
        "conditions=[",
        "as watch:",
    ),
    *("state.checkpoint(", "state.fork(", "state.lease(", "state.grant_lease(", "state.keep_alive("),
    *("state.cell(", "comity.sync.connect("),
)


def sample(word: str) -> str:
    """The sample of docs/client.md in which the word stands."""
    code = CLIENT[TESTED.index(word)]
    assert word in code, "another sample stands in its place: the order in TESTED is that of the page"
    return code


class OutOfBudget(Exception):
    """What a sample raises but does not define."""


@dataclasses.dataclass
class Budget:
    """What a sample keeps in a cell."""

    left: int

    def spend(self, amount: int) -> "Budget":
        return Budget(self.left - amount)


@pytest.fixture
async def state(server: Server, namespace: str) -> AsyncIterator[Client]:
    async with comity.connect(server.address, namespace=namespace) as client:
        for number in range(20):
            await client.put("plan", {"step": number})
        yield client


def begin(code: str, state: Client, server: Server) -> tuple["asyncio.Task[None]", dict[str, Any]]:
    """Start a sample, with `state` and what else it takes for granted; and the variables that it has."""
    code = code.replace("localhost:7171", server.address).replace('"research"', f'"{state.namespace}"')
    code = code.replace('"idea-1"', f'"{state.namespace}-idea"')
    known = {"comity": comity, "state": state, "OutOfBudget": OutOfBudget, "Budget": Budget, "agents": {}}
    compiled = compile(code, "a sample", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run() -> None:
        result = eval(compiled, known)
        if inspect.isawaitable(result):
            await result

    return asyncio.create_task(run()), known


def test_the_sample_without_async(server: Server, namespace: str) -> None:
    code = sample("comity.sync.connect(")
    code = code.replace("localhost:7171", server.address).replace('"research"', f'"{namespace}"')
    code = code.replace("    for event in state.watch", '    state.put("agents/a", 1)\n    for event in state.watch')
    code = code.replace('watch("agents/")', 'watch("agents/", from_revision=1)')
    known: dict[str, Any] = {"comity": comity}
    exec(code.replace("...", "break"), known)
    with comity.sync.connect(server.address, namespace=namespace) as state:
        assert known["event"].key == "agents/a"
        assert [entry.value for entry in state.list()] == [1, 90, {"step": 1}]


def test_the_sample_of_the_readme(server: Server, namespace: str, tmp_path: Path) -> None:
    code, plain, *_ = samples("README.md")
    program = tmp_path / "program.py"
    program.write_text(code.replace("localhost:7171", server.address).replace('"research"', f'"{namespace}"'))
    with subprocess.Popen(
        [sys.executable, "-u", str(program)],
        env=servers.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.kill()
    assert lines == ["1 planner budget 100\n", "2 planner budget 90\n"]
    program.write_text(plain.replace("localhost:7171", server.address).replace('"research"', f'"{namespace}"'))
    assert subprocess.check_output([sys.executable, str(program)], text=True, timeout=60) == "1\n"


def test_each_sample_of_the_client_has_a_test() -> None:
    assert len(CLIENT) == len(TESTED)
    assert all(word in code for word, code in zip(TESTED, CLIENT, strict=True))


async def test_connecting(state: Client, server: Server) -> None:
    await state.delete("plan")
    await begin(sample("comity.connect("), state, server)[0]
    entry = await state.get("plan")
    assert entry is not None
    assert (entry.value, entry.version) == ({"step": 2}, 2)


async def test_connecting_by_tls_with_a_token(tmp_path: Path) -> None:
    authority = Authority()
    ca = authority.write(tmp_path)
    own = authority.server("state.internal").write(tmp_path, "server")
    pair = authority.client("nobody").write(tmp_path, "client")
    (tmp_path / "token").write_text(token_of("ann"))
    settings = {"tls-cert": own.cert, "tls-key": own.key, "tls-client-ca": ca}
    settings["tokens"] = write_tokens(tmp_path / "tokens", ["ann"])
    with servers.start(*(f"--{name}={path}" for name, path in settings.items())) as server:
        places = {
            "state.internal:7171": server.address,
            "/etc/comity/ca.pem": str(ca),
            "/etc/comity/client.pem": str(pair.cert),
            "/etc/comity/client.key": str(pair.key),
            "/run/secrets/comity-token": str(tmp_path / "token"),
        }
        code = sample("comity.TLS(")
        for said, place in places.items():
            assert said in code
            code = code.replace(said, place)
        known: dict[str, Any] = {"comity": comity}
        exec(code, known)
        async with known["state"] as state:
            await state.put("plan", 1)
            assert [commit.author async for commit in state.history()] == ["ann"]


async def test_reading(state: Client, server: Server) -> None:
    await begin(sample("state.history("), state, server)[0]


async def test_counting(state: Client, server: Server) -> None:
    task, known = begin(sample("state.increment("), state, server)
    await task
    assert known["runs"].value == 1


async def test_a_function(state: Client, server: Server) -> None:
    await state.put("budget", 15)
    task, known = begin(sample("def spend("), state, server)
    await task
    assert known["left"] == 5
    with pytest.raises(OutOfBudget):
        await begin(sample("def spend("), state, server)[0]


async def test_a_function_that_lists(state: Client, server: Server) -> None:
    for name, idle in (("a", True), ("b", False), ("c", True)):
        await state.put(f"agents/{name}", {"idle": idle})
    task, known = begin(sample("def retire("), state, server)
    await task
    assert known["left"] == 1
    assert [entry.key async for entry in state.list("agents/")] == ["agents/b"]


@pytest.mark.parametrize("holds", [True, False])
async def test_conditions(state: Client, server: Server, holds: bool) -> None:
    for number in range(3 if holds else 2):
        await state.put("budget", number)
    task, known = begin(sample("conditions=["), state, server)
    await task
    assert known["result"].committed is holds
    assert len(known["result"].results) == (2 if holds else 1)


async def test_watching(state: Client, server: Server) -> None:
    task, known = begin(sample("as watch:"), state, server)
    await until(lambda: "watch" in known)
    await known["watch"].ready()
    await state.transact(then=[comity.Put("agents/a", 1), comity.Put("agents/b", 2)])
    await state.delete("agents/a")
    await until(lambda: task.done() or known["agents"] == {"agents/b": 2})
    await state.delete_namespace()
    await until(lambda: task.done() or known["agents"] == {})
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_checkpoints(state: Client, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    await state.put("drafts/plan", {"step": 2})
    task, known = begin(sample("state.checkpoint("), state, server)
    await task
    assert capsys.readouterr().out == "drafts/plan {'step': 2} -> {'step': 3}\n"
    assert (known["done"].put, known["done"].deleted) == (1, 0)
    entry = await state.get("drafts/plan")
    assert entry is not None
    assert entry.value == {"step": 3}
    assert [mark.name async for mark in state.checkpoints()] == []


@pytest.mark.parametrize("changed", [False, True], ids=["alone", "on both sides"])
async def test_forks(state: Client, server: Server, capsys: pytest.CaptureFixture[str], changed: bool) -> None:
    code = sample("state.fork(")
    if changed:
        code = code.replace("\nresult = ", "\nawait state.put('plan', 'ours')\nresult = ", 1)
    task, known = begin(code, state, server)
    await task
    assert known["result"].merged
    assert capsys.readouterr().out.startswith("plan Entry(" if changed else "")
    entry = await state.get("plan")
    assert entry is not None
    assert entry.value == {"step": 4}
    with pytest.raises(comity.NotFound):
        await known["idea"].namespace_info()


async def test_a_block_with_a_lease(state: Client, server: Server) -> None:
    for code in (sample("state.lease("), samples("README.md")[2]):
        task, known = begin(code, state, server)
        await task
        assert known["lease"].ttl == 10
        assert await state.get("agents/a") is None
        report = await state.get("report")
        assert report is not None
        assert report.value == "all is well"


async def test_recipes(state: Client, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    task, known = begin(samples("README.md")[3], state, server)
    await task
    assert capsys.readouterr().out == "https://example.org\n"
    version = await state.get("version")
    assert version is not None
    assert version.value == 7
    assert await known["queue"].size() == (0, 0, 0)
    assert not await known["lock"].locked()


def test_the_agents_of_the_readme(server: Server, namespace: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    code = samples("README.md")[4]
    program.write_text(code.replace("localhost:7171", server.address).replace('"newsroom"', f'"{namespace}"'))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Leases end by themselves.\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to be caught")
def test_the_agents_of_the_readme_end_well_by_kill(server: Server, namespace: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    code = samples("README.md")[4]
    code = code.replace("localhost:7171", server.address).replace('"newsroom"', f'"{namespace}"')
    program.write_text(code.replace('message.context["draft"].capitalize()', "await asyncio.sleep(600)"))
    running = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        with comity.sync.connect(server.address, namespace=namespace) as state:
            wait_until(lambda: state.get("agents/editor") is not None)
        running.terminate()
        assert (*running.communicate(timeout=30), running.returncode) == ("", "", 0)
    finally:
        running.kill()
        running.wait()


async def test_agents(state: Client, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code = samples("README.md")[5].replace('mode="process"', 'mode="task"')  # a process could not import the sample
    task, _ = begin("from comity.agents import Agent, Supervisor\npages = ['a' * 200, 'b']\n" + code, state, server)
    await task
    assert sorted(capsys.readouterr().out.splitlines()) == [f"0 {'a' * 100}", "1 b"]


async def test_a_lease(state: Client, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    task, known = begin(sample("state.grant_lease("), state, server)
    await task
    shown = capsys.readouterr().out.split()
    assert shown[:2] == [str(known["lease"].id), "True"]
    assert 9 < float(shown[2]) <= 10


async def test_a_put_with_a_ttl(state: Client, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    task, known = begin(sample("state.keep_alive("), state, server)
    await task
    assert capsys.readouterr().out.split()[0] == str(known["put"].lease_id)
    assert await state.get("session/1") is None


async def test_a_cell(state: Client, server: Server) -> None:
    task, known = begin(sample("state.cell("), state, server)
    await until(lambda: task.done() or known.get("value") == Budget(90))
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
