"""Files that are read again when they change: in each way in which files are replaced, and not when they are wrong."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from comity_server.access import files
from comity_server.access.files import FileError, Files, Watched, read
from tests.waiting import until

Logs = list[structlog.typing.EventDict]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(files, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "value"
    path.write_text("1")
    return path


def write(path: Path, text: str | None) -> None:
    """Have the file hold a text, or be gone."""
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


def number(contents: Sequence[bytes]) -> int:
    """What the files hold, as one number. RecursionError stands for what a parser does not foresee."""
    text = b"".join(contents).decode()
    if text == "deep":
        raise RecursionError("too deep")
    if not text.isdigit():
        raise FileError(f"value: {text!r} is not a number")
    return int(text)


async def watching(work: Callable[[Watched[int]], Coroutine[None, None, None]], *paths: Path) -> None:
    watched = Watched("value", paths, number)
    watch = Files()
    watch.add(watched)
    run = asyncio.create_task(watch.run())
    try:
        await work(watched)
    finally:
        run.cancel()


def _in_place(path: Path) -> None:
    write(path, "2")


def _renamed_over(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("2")
    # The same size and times: the content alone tells.
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)


def _gone_for_a_while(path: Path) -> None:
    path.unlink()
    write(path, "2")


@pytest.mark.parametrize("replace", [_in_place, _renamed_over, _gone_for_a_while])
async def test_a_changed_file_is_in_force(path: Path, replace: Callable[[Path], None]) -> None:
    async def work(watched: Watched[int]) -> None:
        told: list[int] = []
        watched.on_change(told.append)
        assert watched.value == 1
        replace(path)
        await until(lambda: watched.value == 2)
        assert told == [2]

    await watching(work, path)


async def test_a_secret_of_kubernetes_is_swapped_as_a_whole(tmp_path: Path) -> None:
    for folder, digits in (("..old", "12"), ("..new", "34")):
        (tmp_path / folder).mkdir()
        for name, digit in zip("ab", digits, strict=True):
            (tmp_path / folder / name).write_text(digit)
    (tmp_path / "..data").symlink_to("..old")
    for name in "ab":
        (tmp_path / name).symlink_to(f"..data/{name}")

    async def work(watched: Watched[int]) -> None:
        (tmp_path / "..data_tmp").symlink_to("..new")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await until(lambda: watched.value != 12)
        assert watched.value == 34

    await watching(work, tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("wrong", ["x", "deep", None])
async def test_what_is_wrong_is_told_once_and_the_old_stays(path: Path, wrong: str | None) -> None:
    async def work(watched: Watched[int]) -> None:
        with structlog.testing.capture_logs() as logs:
            write(path, wrong)
            await until(lambda: bool(logs))
            for _ in range(3):
                await watched.look()
            assert [line["log_level"] for line in logs] == ["error"]
            assert str(path.name) in logs[0]["error"]
            assert watched.value == 1
            write(path, "1")
            await until(lambda: len(logs) == 2)
            assert logs[1]["event"] == "a file is in order again"
            write(path, "y")
            await until(lambda: len(logs) == 3)
            assert "y" in logs[2]["error"] if wrong != "deep" else logs[2]["error"]

    await watching(work, path)


async def test_a_file_that_is_wrong_for_one_look_is_not_worth_a_line(path: Path) -> None:
    watched = Watched("value", [path], number)
    with structlog.testing.capture_logs() as logs:
        write(path, "x")
        await watched.look()
        write(path, "2")
        await watched.look()
        await watched.look()
    assert watched.value == 2
    assert [line["log_level"] for line in logs] == ["info"]


async def test_what_is_being_written_is_not_taken(path: Path) -> None:
    """Nor while the content is as it was at the look before, by chance or since that is how it begins each time."""
    watched = Watched("value", [path], number)
    with path.open("w") as file:
        for digit in "234":
            file.write(digit)
            file.flush()
            assert not await watched.look()
    assert watched.value == 1
    assert await watched.look()
    assert watched.value == 234


async def test_how_long_a_file_has_to_be_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that are asked for do not shorten it; nor does it go by the clock of the files."""
    now = 0.0
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(files, "SETTLE_SECONDS", 0.9)
    watched = Watched("value", [path], number)
    write(path, "2")
    for written in (3e9, 1.0):
        os.utime(path, (written, written))
        for _ in range(3):
            assert not await watched.look()
            now += 0.4
        os.utime(path, (2.0, 2.0))
    assert not await watched.look()
    now += 1
    assert await watched.look()
    assert watched.value == 2


async def test_a_file_that_is_written_again_and_again_counts_in_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(files, "SETTLE_SECONDS", 0.9)
    watched = Watched("value", [path], number)
    for second in range(11):
        now = float(second)
        write(path, "2")
        os.utime(path, (now, now))
        assert await watched.look() == (second == 10)


async def test_a_look_is_had_at_once_on_request(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOOK_SECONDS", 1000)
    watched = Watched("value", [path], number)
    watch = Files()
    watch.add(watched)
    run = asyncio.create_task(watch.run())
    write(path, "2")

    def is_new() -> bool:
        watch.look()
        return watched.value == 2

    await until(is_new)
    run.cancel()


async def test_a_listener_that_fails_does_not_end_the_watch(path: Path) -> None:
    async def work(watched: Watched[int]) -> None:
        def fail(value: int) -> None:
            raise RuntimeError(str(value))

        watched.on_change(fail)
        write(path, "2")
        await until(lambda: watched.value == 2)
        write(path, "3")
        await until(lambda: watched.value == 3)

    await watching(work, path)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match=r"none: No such file"):
        read(tmp_path / "none")
    with pytest.raises(FileError, match=r"pipe: is not a regular file"):
        read(tmp_path / "pipe")
    with pytest.raises(FileError, match=r"is not a regular file"):
        read(tmp_path)
    with pytest.raises(FileError, match=r"is not a path"):
        read(tmp_path / "a\0b")


def test_a_file_has_a_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 8)
    write(path, "12345678")
    assert read(path) == b"12345678"
    write(path, "123456789")
    with pytest.raises(FileError, match="is larger than 8 bytes"):
        read(path)
