"""The file of the sqlite store: who may open it, what is refused and left alone, how an old one becomes a new one."""

import asyncio
import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from comity_server.errors import StateError, StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Outcome, Put, Transaction
from comity_server.record import VALUE
from comity_server.stores.sqlite import schema
from comity_server.stores.sqlite.store import SqliteStore
from comity_server.stores.url import default_url, sqlite_path
from tests import servers
from tests.waiting import until
from tests.wire.calls import Wire

NEW = "a new store was made"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "comity.db"


@contextmanager
def serving(store: str | Path, env: servers.Environment | None = None) -> Iterator[Wire]:
    url = store if isinstance(store, str) else f"sqlite:{store}"
    with servers.start("--store", url, env=env) as server, grpc.insecure_channel(server.address) as channel:
        yield Wire(channel)


def refused(store: str | Path, code: int = 1, env: servers.Environment | None = None) -> str:
    """What a start says that has to fail: one line beside the log."""
    url = store if isinstance(store, str) else f"sqlite:{store}"
    done = servers.run("--store", url, env=env)
    assert done.returncode == code, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr, done.stderr
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("{"))


def made(path: Path) -> Path:
    """A file with a key in it, as a server leaves it."""
    with serving(path) as wire:
        wire.put("n", "k", b"v")
    return path


def test_a_second_server_on_a_file_is_refused_and_the_first_goes_on(path: Path) -> None:
    with serving(path) as wire:
        wire.put("n", "k", b"1")
        assert f"{path}: it is in use by another server" in refused(path)
        wire.put("n", "k", b"2")
        assert wire.get("n", "k") == b"2"
    with serving(path) as wire:
        assert wire.get("n", "k") == b"2"


def test_a_second_server_is_refused_under_another_name_of_the_file_too(path: Path, tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link.db"
    folder.symlink_to(tmp_path, target_is_directory=True)
    link.symlink_to(path)
    with serving(path) as wire:
        wire.put("n", "k", b"1")
        for other in (folder / "comity.db", link, tmp_path / "." / "folder" / ".." / tmp_path.name / "comity.db"):
            assert "is in use by another server" in refused(other)
        wire.put("n", "k", b"2")
    with serving(link) as wire:
        assert wire.get("n", "k") == b"2"


def test_the_log_says_that_a_file_is_new(tmp_path: Path) -> None:
    path = tmp_path / "no" / "folder" / "comity.db"
    with servers.start("--store", f"sqlite:{path}") as server:
        (line,) = [json.loads(line) for line in server.log().splitlines() if NEW in line]
        assert line["file"] == str(path)
        server.restart()
        assert server.log().count(NEW) == 1
        assert server.log().count('"loaded"') == 2


def test_a_killed_server_leaves_the_file_free(path: Path) -> None:
    with servers.start("--store", f"sqlite:{path}") as server:
        server.kill()
        with serving(path) as wire:
            wire.put("n", "k")


async def is_free(path: Path) -> bool:
    """Whether nobody has a file, as far as a store can tell that would open it."""
    store = SqliteStore(path, Limits())
    try:
        await store.open()
    except StoreUnavailable:
        return False
    await store.close()
    return True


async def test_who_is_cancelled_while_it_closes_has_the_file_until_nothing_is_written_any_more(path: Path) -> None:
    store = SqliteStore(path, Limits())
    await store.open()
    began, goes_on = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        began.set()
        goes_on.wait(60)
        connection.execute("UPDATE store SET least_revision = 7")

    async def write() -> Sequence[Outcome | StateError]:
        return await store.commit("n", [Transaction(then=[Put("k", b"1")])])

    held = asyncio.ensure_future(store._writer.write(slow))
    await until(began.is_set)
    behind = asyncio.ensure_future(write())
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not await is_free(path)
    goes_on.set()
    async with asyncio.timeout(20):
        await held
    (answer,) = await behind
    assert isinstance(answer, StoreUnavailable)
    await until(lambda: is_free(path))
    again = SqliteStore(path, Limits())
    await again.open()
    assert (again.least_revision, list(again.namespaces_by_name)) == (7, [])
    await again.close()


async def test_who_is_cancelled_while_it_opens_has_the_file_until_it_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, goes_on = threading.Event(), threading.Event()
    migrate = schema.migrate

    def slow(connection: sqlite3.Connection) -> None:
        began.set()
        goes_on.wait(60)
        migrate(connection)

    monkeypatch.setattr(schema, "migrate", slow)
    opening = asyncio.ensure_future(SqliteStore(path, Limits()).open())
    await until(began.is_set)
    monkeypatch.undo()
    opening.cancel()
    assert not await is_free(path)
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert await is_free(path)


def newer(path: Path) -> None:
    made(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 4711")
        connection.execute("CREATE TABLE notes (text)")


def unnamed(path: Path) -> None:
    """A database of a program that does not say which."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")


def text(path: Path) -> None:
    path.write_text("Dear diary,\n" * 1000)


def little_text(path: Path) -> None:
    path.write_text("Dear diary,\n")


def truncated(path: Path) -> None:
    made(path)
    os.truncate(path, path.stat().st_size // 2)


def damaged(path: Path) -> None:
    made(path)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(random.Random(1).randbytes(path.stat().st_size - 5000))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (newer, "a newer Comity wrote it"),
        (foreign, "a database of another program"),
        (unnamed, "a database of another program"),
        (text, "damaged, or no database"),
        (little_text, "damaged, or no database"),
        (truncated, "damaged"),
        (damaged, "damaged"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_and_left_as_it_was(
    path: Path, make: Callable[[Path], None], why: str
) -> None:
    make(path)
    before = path.read_bytes()
    assert why in refused(path)
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} <= {path.name, path.name + ".lock"}


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    message = refused(tmp_path, code=2)
    assert "store" in message
    assert "is a folder" in message


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file / "comity.db", Path("/proc/comity/comity.db"), Path("/dev/null/comity.db")):
        assert f"{path}: it cannot be used" in refused(path)


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    made(path)
    with serving(path) as wire:
        assert wire.get("n", "k") == b"v"


def contents(connection: sqlite3.Connection) -> list[str]:
    return list(connection.iterdump())


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    made(path)
    with closing(schema.connect(path)) as connection:
        yield connection


ADDED = "CREATE TABLE added (one);\nALTER TABLE store ADD COLUMN extra DEFAULT 7;\nUPDATE store SET extra = 8;\n"


def test_a_migration_is_applied_once(connection: sqlite3.Connection) -> None:
    steps = [*schema.MIGRATIONS, ADDED]
    schema.migrate(connection, steps)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(steps),)
    assert connection.execute("SELECT extra FROM store").fetchone() == (8,)
    assert connection.execute("SELECT key, value FROM versions").fetchall() == [("k", b"v")]
    before = contents(connection)
    schema.migrate(connection, steps)
    assert contents(connection) == before


@pytest.mark.parametrize("fault", ["CREATE TABLE store (twice);\n", "INSERT INTO nowhere VALUES (1);\n", "nonsense;\n"])
def test_a_migration_that_fails_half_way_changes_nothing(
    connection: sqlite3.Connection, path: Path, fault: str
) -> None:
    before, version = contents(connection), len(schema.MIGRATIONS)
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, [*schema.MIGRATIONS, ADDED + fault])
    assert not connection.in_transaction
    assert contents(connection) == before
    assert connection.execute("PRAGMA user_version").fetchone() == (version,)
    connection.close()
    with serving(path) as wire:
        assert wire.get("n", "k") == b"v"


def test_steps_before_the_one_that_fails_are_kept(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, [*schema.MIGRATIONS, ADDED, "nonsense;\n"])
    assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS) + 1,)
    assert connection.execute("SELECT extra FROM store").fetchone() == (8,)


def test_a_file_that_was_migrated_is_too_new_for_what_knows_less(connection: sqlite3.Connection) -> None:
    schema.migrate(connection, [*schema.MIGRATIONS, ADDED])
    with pytest.raises(StoreUnavailable, match="a newer Comity wrote it"):
        schema.migrate(connection)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
@pytest.mark.parametrize("variable", ["XDG_DATA_HOME", "HOME"])
def test_without_a_setting_the_store_is_a_file_of_the_user_alone(tmp_path: Path, variable: str) -> None:
    home = tmp_path / "home"
    data = home / "data" if variable == "XDG_DATA_HOME" else home / ".local" / "share"
    env = {"COMITY_STORE": None, "HOME": str(home), "XDG_DATA_HOME": str(data) if variable != "HOME" else None}
    with servers.start(env=env) as server, grpc.insecure_channel(server.address) as channel:
        Wire(channel).put("n", "k", b"v")
        folder = data / "comity"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for name in ("comity.db", "comity.db-wal"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    with servers.start(env=env) as server, grpc.insecure_channel(server.address) as channel:
        assert Wire(channel).get("n", "k") == b"v"


def test_the_help_names_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    shown = servers.run("--help", env={"XDG_DATA_HOME": str(tmp_path)}).stdout
    assert "".join(default_url().split()) in "".join(shown.split())


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "store"),
        ("comity.db", "is not the URL of a store"),
        ("/var/lib/comity.db", "is not the URL of a store"),
        ("memory", "is not the URL of a store"),
        ("memory:x", "memory: takes nothing"),
        ("memory://", "memory: takes nothing"),
        ("postgres://localhost", "a kind of store that does not exist"),
        ("SQLITE:x.db", "a kind of store that does not exist"),
        (" sqlite:x.db", "a kind of store that does not exist"),
        (":x.db", "a kind of store that does not exist"),
        ("sqlite:", "does not name a file"),
        ("sqlite:folder/", "does not name a file"),
        ("sqlite:/", "does not name a file"),
        ("sqlite:.", "is a folder"),
        ("sqlite:..", "is a folder"),
        ("sqlite:~", "is a folder"),
        ("sqlite:~nobody-of-this-name/x.db", "nobody-of-this-name"),
        ("sqlite:" + "x" * 300, "too long"),
        ("sqlite:" + "x/" * 3000 + "x", "too long"),
    ],
)
def test_a_bad_store_is_refused_by_name(url: str, why: str) -> None:
    message = refused(url, code=2)
    assert "store" in message.lower()
    assert why in message


def test_a_bad_variable_is_refused_by_name() -> None:
    done = servers.run(env={"COMITY_STORE": "memory"})
    assert done.returncode == 2
    assert "is not the URL of a store" in done.stderr
    assert "store" in done.stderr


NAMES = (
    "with space.db",
    "a?mode=memory",
    "a#b",
    "a%20b",
    "%",
    "ünï 数据.db",
    "'quoted\".db",
    "a:b",
    "-x",
    "&cache=shared",
)


async def test_any_name_is_a_name(tmp_path: Path) -> None:
    for place, name in enumerate(NAMES):
        folder = tmp_path / f"{place} in {name}"
        path = folder / name
        store = SqliteStore(sqlite_path(f"sqlite:{path}"), Limits())
        await store.open()
        await store.commit("n", [Transaction(then=[Put("k", b"v")])])
        assert {file.name for file in folder.iterdir()} == {name + end for end in ("", "-wal", "-shm", ".lock")}, name
        with pytest.raises(StoreUnavailable, match="is in use"):
            await SqliteStore(path, Limits()).open()
        await store.close()
        again = SqliteStore(path, Limits())
        await again.open()
        entry = (await again.get("n", "k")).entry
        assert entry is not None, name
        assert entry[VALUE] == b"v"
        await again.close()


def test_a_tilde_is_the_home_and_a_relative_path_begins_where_the_server_was_started(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with serving("sqlite:~/x.db", env={"HOME": str(home)}):
        assert (home / "x.db").exists()
    done = subprocess.run(
        [*servers.command(), "--store", "sqlite:~/x.db/y.db"],
        env=servers.environment({"HOME": str(home)}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{home}/x.db/y.db: it cannot be used" in done.stderr


def test_a_copy_made_while_nobody_wrote_is_a_store(path: Path, tmp_path: Path) -> None:
    made(path)
    copy = shutil.copy(path, tmp_path / "copy.db")
    with serving(copy) as wire:
        assert wire.get("n", "k") == b"v"
