"""One client in several event loops, threads and processes, and its end."""

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading

import pytest

import comity
from tests import servers
from tests.servers import Server
from tests.waiting import until


def tasks_besides_this_one() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def run_script(script: str, *arguments: str) -> str:
    """The output of a program in a process of its own, which must end well and warn of nothing."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr
    return ended.stdout


def test_event_loops_one_after_another(server: Server, namespace: str) -> None:
    client = comity.connect(server.address, namespace=namespace)

    async def put(value: int) -> int:
        return (await client.put("k", value)).version

    assert [asyncio.run(put(value)) for value in range(4)] == [1, 2, 3, 4]

    async def end() -> None:
        await client.close()

    asyncio.run(end())


def test_event_loops_of_several_threads(server: Server, namespace: str) -> None:
    client = comity.connect(server.address, namespace=namespace)
    failures: list[BaseException] = []

    async def work() -> None:
        for _ in range(10):
            await client.transact(lambda tx: tx.increment("n"))
        async for event in client.watch("n", from_revision=1):
            if isinstance(event, comity.Event) and event.entry.value == 40:
                break

    def thread() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []

    async def total() -> object:
        async with client:
            entry = await client.get("n")
            return entry and entry.value

    assert asyncio.run(total()) == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_processes_that_were_forked_before_the_client_connected(server: Server, namespace: str) -> None:
    script = """
        import asyncio, os, sys
        import comity

        client = comity.connect(sys.argv[1], namespace=sys.argv[2])

        async def increment():
            async with client:
                await client.transact(lambda tx: tx.increment("n"))
                return (await client.get("n")).value

        def ends_well(function):
            child = os.fork()
            if child == 0:
                asyncio.run(function())
                os._exit(0)
            return os.waitpid(child, 0)[1] == 0

        assert all(ends_well(increment) for _ in range(3))
        print(asyncio.run(increment()))

        client = comity.connect(sys.argv[1], namespace=sys.argv[2])
        assert ends_well(increment)  # the parent was connected, but is not any more
        print(asyncio.run(increment()))
    """
    assert run_script(script, server.address, namespace).split() == ["4", "6"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_that_was_forked_too_late_is_told_so(server: Server, namespace: str) -> None:
    script = """
        import asyncio, os, sys
        import comity

        client = comity.connect(sys.argv[1], namespace=sys.argv[2])
        asyncio.run(client.put("k", 1))
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(client.get("k"))
            except RuntimeError as error:
                os._exit(0 if "fork before the first call" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        print(asyncio.run(client.put("k", 2)).version)
    """
    assert run_script(script, server.address, namespace).split() == ["2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("kept", [False, True], ids=["let go", "kept"])
def test_what_is_left_of_calls_that_failed_is_no_trap_for_a_fork(server: Server, namespace: str, kept: bool) -> None:
    """An error has what raised it in its traceback, and so the call and gRPC's thread, which a child lacks."""
    script = """
        import asyncio, os, signal, sys, threading
        import comity

        async def fail(state):
            try:
                await state.put("k", 1)
            except comity.Unavailable as error:
                return error

        async def main():
            async with comity.connect("127.0.0.1:1", namespace=sys.argv[2], timeout=0.3) as state:
                return await fail(state)

        error = asyncio.run(main())
        assert "(_poll_wrapper)" in str(threading.enumerate())  # else this shows nothing
        if sys.argv[3] == "False":
            del error
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            try:
                with comity.sync.connect(sys.argv[1], namespace=sys.argv[2]) as state:
                    os._exit(state.put("k", 1).version)
            except RuntimeError as error:
                os._exit(2 if "fork before the first call" in str(error) else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run_script(script, server.address, namespace, str(kept)).split() == ["2" if kept else "1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("client", ["async", "sync"])
def test_a_child_that_leaves_the_client_alone_is_not_harmed_by_it(server: Server, namespace: str, client: str) -> None:
    script = """
        import asyncio, os, sys, time
        import comity
        import comity.detour

        comity.detour.ASIDE_SECONDS = 0.0, 0.0  # each fork finds a stream
        if sys.argv[3] == "sync":
            state = comity.sync.connect(sys.argv[1], namespace=sys.argv[2])
            put = lambda: state.put("k", 1)
        else:
            loop = asyncio.new_event_loop()
            state = comity.connect(sys.argv[1], namespace=sys.argv[2])
            put = lambda: loop.run_until_complete(state.put("k", 1))
        for number in range(8):
            assert put().version == number + 1
            child = os.fork()
            if child == 0:
                time.sleep(0.02)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        print("well")
        os._exit(0)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), server.address, namespace, client],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "well\n"), ended.stderr


def test_a_program_may_end_with_everything_open(server: Server, namespace: str) -> None:
    script = """
        import asyncio, sys
        import comity

        async def main():
            client = comity.connect(sys.argv[1], namespace=sys.argv[2])
            await client.put("k", 1)
            watch = client.watch()
            await watch.ready()
            waiting = asyncio.create_task(anext(watch))
            await asyncio.sleep(0)
            print("end")

        asyncio.run(main())
    """
    assert run_script(script, server.address, namespace).split() == ["end"]


async def test_close_ends_what_waits(server: Server, namespace: str) -> None:
    client = comity.connect(server.address, namespace=namespace)
    watch = client.watch()
    await watch.ready()
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        await waiting
    with pytest.raises(RuntimeError, match="the client is closed"):
        await client.get("k")


async def test_a_client_that_is_dropped_leaves_no_task(server: Server, namespace: str) -> None:
    async def use() -> None:
        client = comity.connect(server.address, namespace=namespace)
        await client.put("k", 1)
        async for _ in client.watch(from_revision=1):
            break

    await use()
    gc.collect()
    await until(lambda: not tasks_besides_this_one(), 20)  # before an unused stream would end by itself


async def test_a_server_that_comes_up_later_is_waited_for() -> None:
    with servers.start() as own:
        own.kill()
        async with comity.connect(own.address, timeout=60) as client:
            waiting = asyncio.create_task(client.wait_for_ready())
            await asyncio.sleep(0.5)
            assert not waiting.done()
            await asyncio.to_thread(own.restart)
            await waiting
            assert (await client.put("k", 1)).version == 1


async def test_a_server_that_does_not_come_up_is_waited_for_as_long_as_was_said() -> None:
    async with comity.connect("127.0.0.1:1") as nobody:
        with pytest.raises(comity.Unavailable):
            await nobody.wait_for_ready(timeout=0.2)


@pytest.mark.parametrize("dead", ["127.0.0.1:1,127.0.0.1:2", "localhost:1,localhost:2", "127.0.0.1:1,localhost:2"])
async def test_of_several_addresses_one_that_answers_is_used(server: Server, namespace: str, dead: str) -> None:
    async with comity.connect(f"{dead},{server.address}", namespace=namespace) as client:
        assert (await client.put("k", 1)).version == 1
        await client.watch().ready()
    async with comity.connect(f"{dead},{server.address}", namespace=namespace) as another:
        await another.delete_namespace()
        with pytest.raises(comity.NotFound):
            await another.delete_namespace()
