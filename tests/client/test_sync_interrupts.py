"""What comes in between the steps of a synchronous call: exceptions, and calls of its own thread; and the end."""

import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest

import comity
from comity import sync
from comity.sync import thread
from tests.servers import Server

WAIT_SECONDS = 30.0


@pytest.fixture
def state(server: Server, namespace: str) -> Iterator[sync.Client]:
    with comity.sync.connect(server.address, namespace=namespace, author="tester") as client:
        client.put("k", 1)
        yield client


def in_time(function: Callable[[], None]) -> None:
    """Call it in a thread of its own, which may hang."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    other = threading.Thread(target=call, daemon=True)
    other.start()
    other.join(WAIT_SECONDS)
    assert not other.is_alive(), "it hangs"
    if errors:
        raise errors[0]


def between(step: int, intrude: Callable[[], None], call: Callable[[], None]) -> bool:
    """Make a call, and intrude before the given one of the bytecodes by which this thread waits for it. Whether there
    are as many."""
    left = step

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != thread.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                intrude()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return left <= 0


def at_every_step(call: Callable[[int], bool]) -> int:
    """Call it with 1, 2, ... until it says that there are no more steps. How many there were."""
    step = 0
    going_on = [True]
    while going_on.pop():
        step += 1
        in_time(partial(lambda step: going_on.append(call(step)), step))
    gc.collect()  # what was never awaited
    return step


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupted(step: int, call: Callable[[], None]) -> bool:
    """Whether there was such a step, before which KeyboardInterrupt was raised."""
    try:
        return between(step, interrupt, call)
    except KeyboardInterrupt:
        return True


def never_awaited(test: Callable[..., None]) -> Callable[..., None]:
    """Interrupts may come before the coroutine is anybody's."""
    for warning in ("coroutine .* was never awaited", "Exception ignored in. <coroutine"):
        test = pytest.mark.filterwarnings(f"ignore:{warning}")(test)
    return test


@never_awaited
def test_whenever_an_interrupt_comes_the_next_call_works(state: sync.Client) -> None:
    def get() -> None:
        assert (entry := state.get("k")) is not None
        assert entry.value == 1

    def call(step: int) -> bool:
        found = interrupted(step, get)
        in_time(get)
        return found

    assert at_every_step(call) > 50


@never_awaited
def test_whenever_an_interrupt_comes_in_the_first_call_the_next_one_works(server: Server, namespace: str) -> None:
    def call(step: int) -> bool:
        with comity.sync.connect(server.address, namespace=namespace, author="tester") as state:

            def put() -> None:
                state.put("k", 1)

            found = interrupted(step, put)
            in_time(put)
        assert not is_there()
        return found

    assert at_every_step(call) > 100


def test_a_call_may_come_at_any_time_in_the_thread_of_another(state: sync.Client) -> None:
    def get() -> None:
        assert (entry := state.get("k")) is not None
        assert entry.value == 1

    assert at_every_step(lambda step: between(step, get, get)) > 50


def test_a_call_may_come_at_any_time_in_the_thread_of_the_first(server: Server, namespace: str) -> None:
    def call(step: int) -> bool:
        with comity.sync.connect(server.address, namespace=namespace, author="tester") as state:

            def put() -> None:
                state.put("k", 1)

            found = between(step, put, put)
        assert not is_there()
        return found

    assert at_every_step(call) > 100


def is_there() -> bool:
    """Whether the event loop's thread is."""
    return any(other.name == "comity" for other in threading.enumerate())


@pytest.mark.parametrize("garbage", ["", "last.itself = last; del last"], ids=["global", "cycle"])
def test_a_call_of_a_finalizer_when_the_process_ends_is_refused(server: Server, namespace: str, garbage: str) -> None:
    text = f"""
        import sys
        import comity

        class Last:
            def __init__(self, state):
                self.state = state

            def __del__(self):
                try:
                    self.state.delete("k")
                except RuntimeError as error:
                    print(error)

        state = comity.sync.connect(sys.argv[1], namespace=sys.argv[2])
        state.put("k", 1)
        last = Last(state)
        {garbage}
    """
    assert said(text, server.address, namespace) == [
        "the process ends, and has ended the thread of the synchronous clients"
    ]


def test_a_call_of_an_exit_handler_that_runs_after_the_end_is_refused(server: Server, namespace: str) -> None:
    text = """
        import atexit, sys

        def last():
            try:
                state.put("k", 2)
            except RuntimeError as error:
                print(error)

        atexit.register(last)
        import comity

        state = comity.sync.connect(sys.argv[1], namespace=sys.argv[2])
        state.put("k", 1)
    """
    assert said(text, server.address, namespace) == [
        "the process ends, and has ended the thread of the synchronous clients"
    ]


def test_daemon_threads_that_go_on_calling_say_nothing_when_the_process_ends(server: Server, namespace: str) -> None:
    text = """
        import sys, threading
        import comity

        state = comity.sync.connect(sys.argv[1], namespace=sys.argv[2])
        begun = threading.Barrier(5)

        def call():
            begun.wait()
            while True:
                state.put("k", 1)

        for _ in range(4):
            threading.Thread(target=call, daemon=True).start()
        begun.wait()
        state.put("k", 2)
    """
    assert said(text, server.address, namespace) == []


def said(text: str, *arguments: str) -> list[str]:
    """The lines that a program prints, which must end well and warn of nothing."""
    ended = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()
