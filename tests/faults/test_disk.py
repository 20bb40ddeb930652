"""What a disk does to a running server: writes are refused and say why, reads go on, and so does all when it is well.

Where the cause can be taken away, the server has to go on without a restart.
"""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2 as h

from tests import servers
from tests.faults.ledger import Asked
from tests.faults.patient import Patient, patient
from tests.waiting import until

MIB = 1024 * 1024
NOT_SERVING = h.HealthCheckResponse.NOT_SERVING


def mount(*arguments: str | Path) -> None:
    """Mount, or skip the test where that cannot be."""
    if shutil.which("mount") is None:
        pytest.skip("there is no program to mount with")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(place: Path, *arguments: str | Path) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    mount(*arguments, place)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 4 MiB."""
    place = tmp_path / "disk"
    with mounted(place, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        yield place


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def written(path: Path) -> int:
    """How large the log is, which is where all is written at first."""
    return path.with_name(path.name + "-wal").stat().st_size


def resize(disk: Path, size: str) -> None:
    run("mount", "-o", f"remount,size={size}", disk)


@contextlib.asynccontextmanager
async def serve(path: Path) -> AsyncIterator[Patient]:
    with servers.start("--store", f"sqlite:{path}") as server:
        async with patient(server, path) as own:
            yield own


def fill(disk: Path) -> Path:
    """Leave no room at all."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


async def is_ill(own: Patient, message: str) -> list[Asked]:
    """All that has to hold while the disk cannot be written. Returns what was refused."""
    asked = [own.new("k") for _ in range(5)]
    refusals = await asyncio.gather(*map(own.refused, asked))
    assert {refusal.message for refusal in refusals} == {message}
    await own.says(NOT_SERVING)
    await own.every_kind_of_write_is_refused()
    await own.reads_go_on()
    await own.refused(asked[0])
    await own.says(NOT_SERVING)
    assert own.heard.count(h.HealthCheckResponse.SERVING) == 1
    return asked


async def test_a_full_disk(disk: Path) -> None:
    async with serve(disk / "comity.db") as own:
        filler = fill(disk)
        refused = await is_ill(own, "the store's disk is full; nothing was done")
        await asyncio.to_thread(filler.unlink)
        await own.goes_on(refused)


async def test_a_disk_that_the_server_fills_itself(disk: Path) -> None:
    """In the middle of large writes of several clients, of which some may still fit."""
    async with serve(disk / "comity.db") as own:
        refused: list[Asked] = []
        while len(refused) < 20:
            asked = [own.new("large", 100_000) for _ in range(5)]
            answers = await asyncio.gather(*map(own.send, asked), return_exceptions=True)
            for one, answer in zip(asked, answers, strict=True):
                if not isinstance(answer, Asked):
                    assert isinstance(answer, grpc.aio.AioRpcError)
                    assert own.told(answer).reason == "STORE_FULL"
                    refused.append(one)
        refused.append(own.new("large", 1_000_000))  # for which there is certainly no room
        await own.refused(refused[-1])
        await own.says(NOT_SERVING)
        await own.reads_go_on()
        resize(disk, "64m")
        await own.goes_on(refused)


async def test_a_full_disk_and_no_room_for_the_log_either(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(disk))  # where servers keep their logs in these tests
    async with serve(disk / "comity.db") as own:
        filler = fill(disk)
        refused = await is_ill(own, "the store's disk is full; nothing was done")
        await asyncio.to_thread(filler.unlink)
        await own.goes_on(refused)


@contextlib.contextmanager
def largest_file(own: Patient, size: int) -> Iterator[None]:
    """Let the server write no file beyond a size, as the system may do, and as a disk does that fails."""
    process = psutil.Process(own.server.process.pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (size, before[1]))
    yield
    process.rlimit(psutil.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("log_too", [True, False])
async def test_a_disk_that_fails(tmp_path: Path, log_too: bool) -> None:
    path = tmp_path / "comity.db"
    async with serve(path) as own:
        with largest_file(own, 0 if log_too else written(path)):
            refused = await is_ill(own, "the store's disk failed: I/O error")
        await own.goes_on(refused)


async def test_a_disk_that_has_room_for_little(tmp_path: Path) -> None:
    """A page or two still fit, and no write does: that the server can write those must not make it look well."""
    path = tmp_path / "comity.db"
    async with serve(path) as own:
        with largest_file(own, written(path) + 5_000):
            refused = [own.new("k", 10_000)]
            await own.refused(refused[0])
            await own.says(NOT_SERVING)
            probing = own.messages
            await until(lambda: own.messages > probing + 20)  # two seconds
            await own.says(NOT_SERVING)
            assert own.heard.count(h.HealthCheckResponse.SERVING) == 1
            await own.reads_go_on()
        await own.goes_on(refused)


async def test_a_file_that_is_made_immutable(tmp_path: Path) -> None:
    path = tmp_path / "comity.db"
    async with serve(path) as own:
        log = path.with_name("comity.db-wal")
        try:
            await asyncio.to_thread(run, "chattr", "+i", log, path)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no file can be made immutable here: {error}")
        try:
            refused = await is_ill(own, "the store's disk failed: I/O error")
        finally:
            await asyncio.to_thread(run, "chattr", "-i", log, path)
        await own.goes_on(refused)


@pytest.mark.parametrize("name", ["comity.db", "comity.db-wal", "comity.db.lock"])
async def test_a_file_that_is_taken_away_and_put_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / "comity.db"
    async with serve(path) as own:
        file, away = tmp_path / name, tmp_path / "away"
        file.rename(away)
        refused = await is_ill(own, "the store's file was removed or replaced")
        assert not file.exists()
        away.rename(file)
        await own.goes_on(refused)


async def test_a_file_that_is_replaced(tmp_path: Path) -> None:
    """By a copy of itself, as a restore from a backup would: what the server wrote there would be lost."""
    path = tmp_path / "comity.db"
    async with serve(path) as own:
        away, copy = tmp_path / "away", tmp_path / "copy"
        await asyncio.to_thread(shutil.copy, path, copy)
        os.link(path, away)
        copy.rename(path)
        before = path.read_bytes()
        refused = await is_ill(own, "the store's file was removed or replaced")
        assert path.read_bytes() == before
        away.rename(path)
        await own.goes_on(refused)


async def test_a_folder_that_is_taken_away_and_put_back(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with serve(folder / "comity.db") as own:
        away = folder.rename(tmp_path / "away")
        refused = await is_ill(own, "the store's file was removed or replaced")
        away.rename(folder)
        await own.goes_on(refused)


async def test_a_file_that_another_program_holds(tmp_path: Path) -> None:
    path = tmp_path / "comity.db"
    async with serve(path) as own:
        other = sqlite3.connect(path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            refused = [own.new("k"), own.new("k")]  # not more: the server waits for some seconds before it gives up
            for refusal in await asyncio.gather(*map(own.refused, refused)):
                assert refusal.message == "the store's file is in use by another program"
            await own.says(NOT_SERVING)
            await own.reads_go_on()
            other.execute("ROLLBACK")
        finally:
            other.close()
        await own.goes_on(refused)


async def test_a_disk_that_becomes_read_only(tmp_path: Path) -> None:
    """As ext4 does after an error. It stays so until it is mounted anew, and so until a restart."""
    image, place = tmp_path / "image", tmp_path / "disk"
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4")
    with image.open("wb") as file:
        file.truncate(16 * MIB)
    await asyncio.to_thread(run, "mkfs.ext4", "-q", "-F", image)
    path = place / "comity.db"
    with contextlib.ExitStack() as stack:
        stack.enter_context(mounted(place, "-o", "loop", image))
        server = stack.enter_context(servers.start("--store", f"sqlite:{path}"))
        async with patient(server, path) as own:
            await asyncio.to_thread(mount, "-o", "remount,abort", place)
            refused = await is_ill(own, "the store's disk failed: I/O error")
            server.kill()
            shown = await asyncio.to_thread(servers.run, "--store", f"sqlite:{path}")
            assert (shown.returncode, "Read-only file system" in shown.stderr) == (1, True)
            assert "Traceback" not in shown.stderr
            await asyncio.to_thread(run, "umount", place)
            await asyncio.to_thread(mount, "-o", "loop", image, place)
            await asyncio.to_thread(server.restart)
            await own.connection.channel.channel_ready()
            for asked in refused:
                await own.send(asked)
            await own.nothing_was_lost()
            server.kill()


def test_a_disk_that_is_full_or_read_only_at_the_start(disk: Path) -> None:
    path = disk / "comity.db"
    with servers.start("--store", f"sqlite:{path}"):
        pass
    filler = fill(disk)
    shown = servers.run("--store", f"sqlite:{path}")
    assert shown.returncode == 1
    assert "the store's disk is full" in shown.stderr
    filler.unlink()
    before = path.read_bytes()
    mount("-o", "remount,ro", disk)
    shown = servers.run("--store", f"sqlite:{path}")
    assert shown.returncode == 1
    assert "Read-only file system" in shown.stderr
    assert "Traceback" not in shown.stderr
    mount("-o", "remount,rw", disk)
    assert path.read_bytes() == before
    with servers.start("--store", f"sqlite:{path}"):
        pass
