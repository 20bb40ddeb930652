"""The file: its tables, how it is opened, and how one of an older version is brought up to date.

State and history are rows: a version of a key is written once, by the commit that made it, and deleted when no revision
that can be read shows it. `versions.id` grows with every row, so that their order is the order of commits, and within
one that of its events.
"""

import os
import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from comity_server.errors import StoreUnavailable

APPLICATION_ID: Final = 0x434F4D59  # "COMY": tells that a file is one of ours
BUSY_SECONDS: Final = 5.0  # how long another program may keep a commit waiting
CHECKPOINT_PAGES: Final = 4000  # of the write-ahead log, before SQLite moves them into the file

VERSION_1: Final = """
CREATE TABLE store (
    epoch TEXT NOT NULL,              -- another one for each history: a backup has its own
    least_revision INTEGER NOT NULL,  -- a namespace whose name is not known begins above it
    probes INTEGER NOT NULL           -- counts the attempts to write after a failure
);
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY,           -- of no other one here, whereas a name may have been used before
    name TEXT NOT NULL,
    deleted INTEGER NOT NULL,         -- 1: kept only for its forks, or until it is cleared away
    revision INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    time INTEGER NOT NULL,            -- of the newest commit; all times are µs since 1970
    create_time INTEGER NOT NULL,
    base INTEGER,                     -- the id of the namespace that it shares versions of
    fork_revision INTEGER,            -- of the base
    base_keys INTEGER,                -- how much there was at the fork
    base_bytes INTEGER
);
CREATE UNIQUE INDEX namespaces_by_name ON namespaces (name) WHERE NOT deleted;
CREATE TABLE names (                  -- of deleted namespaces, which go on counting
    name TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    time INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE versions (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    content_type TEXT NOT NULL,
    version INTEGER NOT NULL,         -- 0: a delete
    create_revision INTEGER NOT NULL,
    lease_id INTEGER NOT NULL,
    time INTEGER NOT NULL,
    cause INTEGER NOT NULL,           -- 1: a client, 2: the end of a lease
    checksum INTEGER NOT NULL         -- of the columns from key to time: see checksum.py
);
CREATE UNIQUE INDEX versions_by_revision ON versions (namespace, revision, key);  -- a commit may write very many keys
CREATE TABLE commits (                -- above the floor all; below it those that say who wrote a version that is kept
    namespace INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    time INTEGER NOT NULL,
    author TEXT NOT NULL,
    message TEXT NOT NULL,
    trace_parent TEXT NOT NULL,
    events INTEGER NOT NULL,          -- how many versions it wrote
    PRIMARY KEY (namespace, revision)
) WITHOUT ROWID;
CREATE TABLE checkpoints (
    namespace INTEGER NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    author TEXT NOT NULL,
    message TEXT NOT NULL,
    labels TEXT NOT NULL,             -- a JSON object
    key_count INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE TABLE clients (                -- whose outcomes are remembered, by the name of the namespace
    namespace TEXT NOT NULL,
    client TEXT NOT NULL,
    awaited INTEGER NOT NULL,
    says_awaited INTEGER NOT NULL,
    PRIMARY KEY (namespace, client)
) WITHOUT ROWID;
CREATE TABLE outcomes (
    namespace TEXT NOT NULL,
    client TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    fingerprint INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    outcome NOT NULL,                 -- see outcomes.py
    PRIMARY KEY (namespace, client, sequence)
) WITHOUT ROWID;
"""

VERSION_2: Final = """
ALTER TABLE store ADD COLUMN clock INTEGER NOT NULL DEFAULT 0;  -- what leases go by, in µs: see MemoryStore.clock
CREATE TABLE leases (                 -- that live
    namespace INTEGER NOT NULL,
    id INTEGER NOT NULL,              -- the revision that granted it
    ttl INTEGER NOT NULL,             -- µs
    deadline INTEGER NOT NULL,        -- by the clock, in µs
    author TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    ends_with_keys INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) WITHOUT ROWID;
"""

LINKED: Final = "the file has another name too, by a hard link, and its lock goes by one name alone"

MIGRATIONS: Final[Sequence[str]] = (VERSION_1, VERSION_2)
"""The step at place N leads from version N to N + 1; an empty file has the version 0. A step that was released is never
changed: what comes later is a step of its own."""


def lock_path(path: Path) -> Path:
    """The file whose lock a server holds while it uses another."""
    return path.with_name(path.name + ".lock")


def connect(path: Path, *, read_only: bool = False, at_rest: bool = False) -> sqlite3.Connection:
    """Open a file, made durable and fast alike. Transactions are begun and ended in so many words.

    at_rest: nobody uses it (see `is_at_rest`), and nothing is put beside it. Only with read_only.

    Raises StoreUnavailable as `version` does if it is to be written: a file that is none of ours is left as it is.
    """
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}{'&immutable=1' if at_rest else ''}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    if read_only:
        return connection
    try:
        version(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # what it takes on macOS
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    except BaseException:
        connection.close()
        raise
    return connection


def is_at_rest(path: Path) -> bool:
    """Whether nobody uses a file, or was using it when it ended: then there is no log beside it."""
    return not path.with_name(path.name + "-wal").exists()


def look(path: Path) -> None:
    """Raises StoreUnavailable if a file is none of ours, as far as that can be told without touching it."""
    if not path.exists():
        return
    if path.stat().st_nlink > 1:
        raise StoreUnavailable(LINKED)
    if not is_at_rest(path):
        return
    connection = connect(path, read_only=True, at_rest=True)
    try:
        version(connection)
    except sqlite3.DatabaseError as error:
        raise StoreUnavailable("the file is damaged, or no database") from error
    finally:
        connection.close()


def create(path: Path) -> None:
    """Make the file, if there is none, for its owner alone; and its folder."""
    make_folder(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def make_folder(folder: Path) -> None:
    """Make a folder, if there is none, for its owner alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def version(connection: sqlite3.Connection, newest: int | None = None) -> int:
    """The version of a file; 0: it is empty. Raises StoreUnavailable if it is none of ours, or newer than `newest`."""
    newest = len(MIGRATIONS) if newest is None else newest
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id != APPLICATION_ID and (application_id or found or tables):
        raise StoreUnavailable("the file is a database of another program")
    if found > newest:
        raise StoreUnavailable(
            f"the file has version {found} of the format, and this program knows none newer than {newest}: "
            "a newer Comity wrote it"
        )
    return int(found)


def migrate(connection: sqlite3.Connection, steps: Sequence[str] = MIGRATIONS) -> int:
    """Bring a file up to date: each step whole, or not at all. Returns the version that it had. Raises StoreUnavailable
    as `version` does."""
    found = version(connection, len(steps))
    for number in range(found, len(steps)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(steps[number]):
                connection.execute(statement)
            if number == 0:
                connection.execute("INSERT INTO store VALUES (?, 0, 0)", (uuid.uuid4().hex,))
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return found


def _statements(script: str) -> Sequence[str]:
    """The statements of a script: `executescript` would commit in between."""
    statements: list[str] = []
    rest = ""
    for line in script.splitlines(keepends=True):
        rest += line
        if sqlite3.complete_statement(rest):
            statements.append(rest)
            rest = ""
    return statements
