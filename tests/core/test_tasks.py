"""What goes on after whoever waited for it has gone."""

import asyncio
import gc
import logging
import socket

import pytest
from structlog.testing import capture_logs

from comity_server.errors import NotFound
from comity_server.tasks import finish, tell_of_defects
from tests.waiting import until


async def left_alone(error: Exception | None) -> None:
    """Work that ends so, after the one who waited for it was cancelled."""
    gate = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def work() -> None:
        await gate.wait()
        if error is not None:
            raise error

    waiting = asyncio.create_task(finish(work(), tasks))
    await until(lambda: bool(tasks))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert tasks, "it goes on"
    gate.set()
    await until(lambda: not tasks)


@pytest.mark.parametrize(
    ("error", "logged"), [(None, []), (NotFound("nothing there"), []), (ZeroDivisionError(), ["error"])]
)
async def test_what_nobody_waits_for_is_finished_and_only_a_defect_is_logged(
    error: Exception | None, logged: list[str]
) -> None:
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    with capture_logs() as log:
        await left_alone(error)
        await asyncio.sleep(0)
        gc.collect()  # when asyncio tells of errors that nobody has looked at
    assert [line["log_level"] for line in log] == logged
    assert unhandled == []


async def test_who_waits_is_told() -> None:
    tasks: set[asyncio.Task[int]] = set()

    async def work(answer: int) -> int:
        if not answer:
            raise NotFound("nothing there")
        return answer

    assert await finish(work(1), tasks) == 1
    with pytest.raises(NotFound):
        await finish(work(0), tasks)
    assert not tasks


@pytest.mark.parametrize(("error", "told"), [(socket.gaierror("no name server"), 0), (ZeroDivisionError(), 1)])
async def test_a_name_that_is_found_too_late_is_no_defect(
    error: Exception, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(tell_of_defects)
    future = loop.create_future()
    future.set_exception(error)
    del future
    gc.collect()
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == told
