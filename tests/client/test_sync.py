"""The client without async: all that the other one has, for plain threads."""

import asyncio
import contextvars
import inspect
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_type

import pytest

import comity
from comity import Delete, Get, Increment, Key, Put, sync
from comity.sync.thread import run
from tests.client.streams import Watched
from tests.servers import Server


@pytest.fixture
def state(server: Server, namespace: str) -> Iterator[sync.Client]:
    with comity.sync.connect(server.address, namespace=namespace, author="ann") as client:
        yield client


def together(*functions: Callable[[], object]) -> None:
    """Run each in a thread of its own, and raise what one of them raised."""
    failures: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised again
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def value(state: sync.Client, key: str) -> Any:
    entry = state.get(key)
    return None if entry is None else entry.value


# The surface


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [
        (name, parameter.kind, parameter.default) for name, parameter in inspect.signature(function).parameters.items()
    ]


@pytest.mark.parametrize(
    ("asynchronous", "synchronous", "more"),
    [
        (comity.Client, sync.Client, {"namespace", "author", "timeout"}),
        (comity.Transaction, sync.Transaction, set()),
        (comity.Cell, sync.Cell, {"key"}),
        (comity.Watch, sync.Watch, {"next"}),
        (comity.Listing, sync.Listing, set()),
        (comity.BlameListing, sync.BlameListing, set()),
        (comity.DiffListing, sync.DiffListing, set()),
        (comity.HistoryListing, sync.HistoryListing, set()),
    ],
)
def test_all_that_is_there_with_async_is_there_without(asynchronous: type, synchronous: type, more: set[str]) -> None:
    assert public(synchronous) - more == public(asynchronous)
    for name in public(asynchronous):
        one, other = getattr(asynchronous, name), getattr(synchronous, name)
        assert other.__doc__
        if callable(one):
            assert parameters(other) == parameters(one), name
            assert not inspect.iscoroutinefunction(other)


def test_connect_takes_the_same() -> None:
    assert parameters(sync.connect) == parameters(comity.connect)


def test_types(state: sync.Client) -> None:
    """What a type checker sees, which `make check` runs over this."""
    assert_type(state.put("k", 1), comity.PutResult)
    assert_type(state.get("k"), comity.Entry | None)
    assert_type(state.list(), sync.Listing)
    assert_type(state.list().all(), list[comity.Entry])
    assert_type(next(iter(state.list())), comity.Entry)
    assert_type(state.history().all(), list[comity.Commit])
    assert_type(state.transact(lambda tx: tx.get("k")), comity.Entry | None)
    assert_type(state.transact(then=[]), comity.TransactionResult)
    assert_type(state.cell("n", int, default=3).get(), int)
    assert_type(state.checkpoint("mark"), comity.Checkpoint)
    assert_type(state.checkpoints(), Iterator[comity.Checkpoint])
    assert_type(state.with_options(author="bob"), sync.Client)
    with pytest.raises(TypeError):
        state.get("k", at=3)  # type: ignore[call-arg]


# Each method


def test_reads_and_writes(state: sync.Client) -> None:
    assert state.get("k") is None
    assert state.put("k", {"n": 1}).version == 1
    assert value(state, "k") == {"n": 1}
    with pytest.raises(comity.Conflict) as lost:
        state.put("k", 2, if_version=0)
    assert lost.value.version == 1
    assert state.put("k", 2, if_version=1, return_previous=True).previous is not None
    with pytest.raises(comity.InvalidArgument):
        state.put("", 1)
    with pytest.raises(TypeError, match="key must be a str"):
        state.get(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing"):
        state.put("k")  # type: ignore[call-arg]
    assert state.delete("k").deleted == 1
    state.wait_for_ready()
    assert (state.namespace_info().revision, state.author, state.timeout) == (3, "ann", 10.0)
    assert state.with_options(timeout=3).timeout == 3


def test_what_comes_in_pages(state: sync.Client) -> None:
    for number in range(5):
        state.put(f"p/{number}", number, message=f"{number}")
    listing = state.list("p/", page_size=2)
    with pytest.raises(RuntimeError, match="after the first page"):
        assert listing.revision
    assert [entry.value for entry in listing] == [0, 1, 2, 3, 4]
    assert [len(page) for page in listing.pages()] == [2, 2, 1]
    assert [entry.key for entry in listing.all()] == [f"p/{number}" for number in range(5)]
    assert listing.revision == 5
    assert [commit.message for commit in state.history(newest_first=False, page_size=2)] == list("01234")
    assert [found.message for found in state.blame("p/")] == list("01234")
    for entry in state.list("p/", page_size=1):
        if entry.value == 1:
            break  # and the rest is not read
    with pytest.raises(comity.OutOfRange):
        state.list(revision=1000).all()
    history = state.history()
    assert len(history.all()) == history.revision == 5
    assert history.floor == 0


def test_checkpoints_forks_and_merges(state: sync.Client) -> None:
    state.put("a", 1)
    mark = state.checkpoint("mark", labels={"by": "ann"}, message="why")
    assert state.get_checkpoint("mark") == mark
    state.put("a", 2)
    state.put("b", 3)
    diff = state.diff(mark)
    assert [(found.key, found.before is None) for found in diff] == [("a", False), ("b", True)]
    assert (diff.base_revision, diff.target_revision) == (1, 3)
    assert state.restore(mark).put == 1
    assert value(state, "a") == 1
    assert [found.name for found in state.checkpoints({"by": "ann"})] == ["mark"]
    state.delete_checkpoint("mark")
    assert list(state.checkpoints()) == []
    fork = state.fork(f"{state.namespace}-fork")
    assert isinstance(fork, sync.Client)
    fork.put("c", 4)
    assert [found.name for found in state.namespaces(fork.namespace)] == [fork.namespace]
    assert state.merge(fork).merged
    assert value(state, "c") == 4
    assert state.compact() == state.namespace_info().revision
    fork.delete_namespace()
    with pytest.raises(comity.NotFound):
        fork.namespace_info()


def test_transactions_of_operations(state: sync.Client) -> None:
    done = state.transact(then=[Put("a", 1), Increment("n", 2)], message="why")
    assert done.committed
    failed = state.transact(conditions=[Key("a").version == 7], then=[Delete("a")], otherwise=[Get("n")])
    assert not failed.committed
    assert isinstance(failed.results[0], comity.GetResult)
    with pytest.raises(TypeError, match="either a function, or conditions"):
        state.transact(lambda tx: None, then=[Put("a", 1)])  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="function must take a Transaction"):
        state.transact(5)  # type: ignore[call-overload]


def test_a_transaction_function_runs_in_the_thread_that_waits(state: sync.Client) -> None:
    state.transact(then=[Put("budget", 100), Put("p/1", 1), Put("p/2", 2)])
    threads = []

    def spend(tx: sync.Transaction) -> int:
        threads.append(threading.current_thread())
        budget = tx.get("budget")
        assert budget is not None
        tx.put("budget", budget.value - 10)
        tx.increment("spent", 10)
        tx.delete("p/1")
        assert [entry.key for entry in tx.list("p/")] == ["p/2"]
        if len(threads) < 3:
            state.put("budget", budget.value - 1)  # another call, and one that this loses against
        return int(budget.value)

    assert state.transact(spend) == 98
    assert threads == [threading.current_thread()] * 3
    assert [value(state, key) for key in ("budget", "spent", "p/1")] == [88, 10, None]


def test_what_a_transaction_function_raises_is_raised(state: sync.Client) -> None:
    def fail(tx: sync.Transaction) -> None:
        tx.put("k", 1)
        raise LookupError("mine")

    def stop(tx: sync.Transaction) -> None:
        tx.put("k", 1)
        raise KeyboardInterrupt

    def iterate(tx: sync.Transaction) -> None:
        tx.put("k", 1)
        next(iter(()))

    with pytest.raises(LookupError, match="mine"):
        state.transact(fail)
    with pytest.raises(KeyboardInterrupt):
        state.transact(stop)
    with pytest.raises(RuntimeError, match="StopIteration"):
        state.transact(iterate)
    assert value(state, "k") is None
    kept: list[sync.Transaction] = []
    state.transact(kept.append)
    with pytest.raises(RuntimeError, match="has ended"):
        kept[0].get("k")


def test_an_async_function_is_refused(state: sync.Client) -> None:
    async def function(tx: sync.Transaction) -> None:
        tx.put("k", 1)

    with pytest.raises(TypeError, match="plain function"):
        state.transact(function)  # type: ignore[unused-coroutine]
    assert value(state, "k") is None


@dataclass
class Budget:
    left: int = 100


def test_cells(state: sync.Client) -> None:
    budget = state.cell("budget", Budget, default=Budget())
    assert budget.key == "budget"
    threads = []

    def spend(found: Budget) -> Budget:
        threads.append(threading.current_thread())
        return Budget(found.left - 10)

    assert budget.update(spend) == budget.get() == Budget(90)
    assert threads == [threading.current_thread()]
    with pytest.raises(comity.Conflict):
        budget.create(Budget())
    budget.set(Budget(5))
    assert next(iter(budget.watch())) == Budget(5)
    assert budget.delete().deleted == 1
    assert budget.get() == Budget()
    with pytest.raises(comity.NotFound):
        state.cell("absent", int).get()


# Watches


def test_a_watch_in_a_loop(state: sync.Client) -> None:
    for number in range(3):
        state.put(f"{number}", number)
    with state.watch(from_revision=1) as watch:
        seen = [next(watch) for _ in range(3)]
        assert [event.entry.value for event in seen if isinstance(event, comity.Event)] == [0, 1, 2]
        assert watch.revision == 3
        assert watch.ready() == 0
        with pytest.raises(TimeoutError):
            watch.next(timeout=0.01)
        state.put("3", 3)
        event = watch.next(timeout=60)
        assert isinstance(event, comity.Event)
        assert event.key == "3"
    assert list(watch) == []
    commits = state.watch(from_revision=1).commits()
    assert [next(commits).revision for _ in range(4)] == [1, 2, 3, 4]


def test_another_thread_ends_a_watch(state: sync.Client) -> None:
    watch = state.watch()
    watch.ready()
    seen: list[object] = []
    reader = threading.Thread(target=lambda: seen.extend(watch))
    reader.start()
    state.put("k", 1)
    while not seen:
        state.namespace_info()
    watch.close()
    reader.join(60)
    assert not reader.is_alive()
    assert len(seen) == 1


def test_close_ends_what_waits(server: Server, namespace: str) -> None:
    client = comity.sync.connect(server.address, namespace=namespace)
    watch = client.watch()
    watch.ready()
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            next(watch)
        except RuntimeError as error:
            ended.append(error)

    reader = threading.Thread(target=wait)
    reader.start()
    client.close()
    reader.join(60)
    assert "the client is closed" in str(ended[0])
    for call in (lambda: client.get("k"), lambda: client.put("k", 1), client.list().all):
        with pytest.raises(RuntimeError, match="the client is closed"):
            call()
    client.close()


# Threads


def test_counts_of_many_threads_are_exact(state: sync.Client) -> None:
    def count() -> None:
        for _ in range(200):
            state.transact(lambda tx: tx.increment("n"))

    together(*[count] * 8)
    assert value(state, "n") == 1600
    assert state.namespace_info().revision == 1600


def test_threads_that_contend_for_a_key_lose_nothing(state: sync.Client) -> None:
    cell = state.cell("n", int, default=0)

    def count() -> None:
        for _ in range(25):
            cell.update(lambda number: number + 1, timeout=60)

    together(*[count] * 8)
    assert cell.get() == 200


def test_calls_of_many_threads_share_messages(state: sync.Client) -> None:
    async def watched() -> Watched:
        return Watched(state._async)

    seen = run(watched())

    def work() -> None:
        for number in range(50):
            state.put("k", number)

    together(*[work] * 32)
    assert seen.operations == 1600
    assert len(seen.messages) < 1200


def test_a_call_in_a_running_event_loop_blocks_it(state: sync.Client) -> None:
    async def main() -> object:
        state.put("k", 1)
        return value(state, "k")

    assert asyncio.run(main()) == 1


def test_a_call_in_the_thread_of_the_event_loop_would_wait_for_itself(state: sync.Client) -> None:
    refused: list[RuntimeError] = []

    def lost(error: comity.ComityError | None) -> None:
        try:
            state.get("k")
        except RuntimeError as found:
            refused.append(found)

    async def inside() -> None:
        lost(None)

    run(inside())
    assert "wait for itself" in str(refused[0])


def test_a_write_is_traced_in_the_context_of_its_caller(server: Server, namespace: str) -> None:
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace")
    with comity.sync.connect(server.address, namespace=namespace, trace_parent=lambda: trace.get()) as state:
        traces = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 5)]

        def write(parent: str) -> None:
            trace.set(parent)
            state.put("k", 1)

        together(*(partial(write, parent) for parent in traces))
        assert sorted(commit.trace_parent for commit in state.history()) == traces


# Processes


def script(text: str, *arguments: str) -> list[str]:
    """What a program prints, which must end well and warn of nothing."""
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in ended.stderr.splitlines() if "skipping fork() handlers" not in line]  # gRPC's note
    assert (ended.returncode, said) == (0, [])
    return ended.stdout.split()


def test_a_program_may_end_with_everything_open(server: Server, namespace: str) -> None:
    text = """
        import sys, threading
        import comity

        state = comity.sync.connect(sys.argv[1], namespace=sys.argv[2])
        state.put("k", 1)
        watch = state.watch()
        watch.ready()
        threading.Thread(target=lambda: list(watch), daemon=True).start()
        print("end")
    """
    assert script(text, server.address, namespace) == ["end"]


def test_an_interrupt_ends_the_wait_and_not_the_client(server: Server, namespace: str) -> None:
    text = """
        import os, signal, sys, threading
        import comity

        with comity.sync.connect(sys.argv[1], namespace=sys.argv[2]) as state:
            with state.watch() as watch:
                watch.ready()
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                try:
                    next(watch)
                except KeyboardInterrupt:
                    print("interrupted")
                state.put("k", 1)
                print(next(watch).key)
    """
    assert script(text, server.address, namespace) == ["interrupted", "k"]


def test_the_thread_ends_with_the_last_client(server: Server, namespace: str) -> None:
    text = """
        import sys, threading
        import comity

        def is_there():
            return any(thread.name == "comity" for thread in threading.enumerate())

        for _ in range(3):
            one, other = (comity.sync.connect(sys.argv[1], namespace=sys.argv[2]) for _ in range(2))
            assert not is_there()
            one.put("k", 1)
            other.put("k", 2)
            one.close()
            one.close()
            assert is_there()
            other.close()
            assert not is_there()
        print(other.namespace == sys.argv[2])
    """
    assert script(text, server.address, namespace) == ["True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_processes_that_were_forked_before_the_client_connected(server: Server, namespace: str) -> None:
    text = """
        import os, sys
        import comity

        state = comity.sync.connect(sys.argv[1], namespace=sys.argv[2])

        def ends_well(function):
            child = os.fork()
            if child == 0:
                function()
                os._exit(0)
            return os.waitpid(child, 0)[1] == 0

        def count():
            with state:
                state.transact(lambda tx: tx.increment("n"))

        assert all(ends_well(count) for _ in range(3))
        count()
        state = comity.sync.connect(sys.argv[1], namespace=sys.argv[2])
        assert ends_well(count)  # the parent was connected, but is not any more

        for close in (True, False):  # nor are its watches, whoever holds them
            state = comity.sync.connect(sys.argv[1], namespace=sys.argv[2])
            watch = state.watch("n")
            watch.ready()
            if close:
                watch.close()
            state.close()
            state = comity.sync.connect(sys.argv[1], namespace=sys.argv[2])
            assert ends_well(count)
            state = comity.sync.connect(sys.argv[1], namespace=sys.argv[2])
        state.transact(lambda tx: tx.increment("n"))

        def too_late():
            try:
                state.get("n")
            except RuntimeError as error:
                assert "fork before the first call" in str(error)
            else:
                os._exit(1)

        assert ends_well(too_late)
        print(state.get("n").value)
    """
    assert script(text, server.address, namespace) == ["8"]
