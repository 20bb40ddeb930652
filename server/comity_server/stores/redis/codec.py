"""What is stored in Redis, as bytes: msgpack, which is compact, fast, and read in every language."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgpack

from comity_server.model import Cause, Checkpoint, Commit, Event, Lease, Outcome, Provenance, RequestId
from comity_server.record import KEY, MOD_REVISION, VERSION, Record
from comity_server.stores.memory.draft import Draft, Named
from comity_server.stores.memory.leases import LeaseChanges
from comity_server.stores.memory.namespace import Held
from comity_server.stores.memory.pins import Totals
from comity_server.stores.memory.requests import Remembered, Requests
from comity_server.stores.outcomes import decode, encode
from comity_server.turns import Pace

_SEPARATOR = b"\0"  # no key has it
_PARTS = 5  # of a commit, as it is stored

Row = tuple[bytes, bytes]  # a field of a hash, and its value
Known = Sequence[tuple[str, int, bool, Sequence[tuple[int, Remembered]]]]  # of `Requests.all`
Packed = Sequence[Any]  # a change, as it is stored


class Control(NamedTuple):
    """What an entry does beside commits."""

    kind: Literal["floor", "pin", "unpin"]
    revision: int
    hold: str = ""  # of a fork
    keys: int = 0  # at the revision that is pinned
    size_bytes: int = 0


class Change(NamedTuple):
    """A record of a commit, as it is stored: its previous one the reader has."""

    record: Record
    cause: Cause


class Leases(NamedTuple):
    """What an entry does with leases. One that it grants and ends is in both."""

    granted: Sequence[Lease] = ()
    ended: Sequence[int] = ()


class Entry(NamedTuple):
    """An entry of a log."""

    token: bytes  # of the attempt that appended it
    time: int
    commits: Sequence[
        tuple[Commit, Sequence[Packed]]
    ]  # the commits without their events, and what `change` makes these of
    checkpoints: Sequence[tuple[str, Checkpoint | None]]
    named: Sequence[Named]
    control: Control | None
    leases: Leases = Leases()


def pack_draft(token: bytes, draft: Draft) -> bytes:
    """A group's changes."""
    checkpoints = [(name, None if made is None else tuple(made)) for name, made in draft.checkpoints.items()]
    named = [(*one.request, one.fingerprint, one.outcome.revision, encode(one.outcome)) for one in draft.named.values()]
    leases = [_leases(draft.leases)] if draft.leases else []  # few entries have any
    time = draft.commits[-1].time if draft.commits else draft.time
    return _pack((token, time, _plain(time, draft.commits), checkpoints, named, None, *leases))


def pack_commits(token: bytes, commits: Sequence[Commit]) -> bytes:
    """Commits, and nothing else."""
    time = commits[-1].time
    return _pack((token, time, _plain(time, commits), (), (), None))


def pack_control(token: bytes, time: int, control: Control) -> bytes:
    """Something else that has its place in the order of a namespace."""
    return _pack((token, time, (), (), (), tuple(control)))


def unpack_entry(data: bytes) -> Entry:
    token, time, commits, checkpoints, named, control, *leases = _unpack(data)
    return _entry(token, time, [_commit(time, *commit) for commit in commits], checkpoints, named, control, *leases)


async def unpack_long_entry(data: bytes, pace: Pace) -> Entry:
    """The same, a change at a time."""
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=len(data))
    unpacker.feed(data)
    parts = unpacker.read_array_header()
    token, time = unpacker.unpack(), unpacker.unpack()
    commits: list[tuple[Commit, Sequence[Packed]]] = []
    for _ in range(unpacker.read_array_header()):
        is_earlier = unpacker.read_array_header() > _PARTS
        revision, author, message, trace_parent = (unpacker.unpack() for _ in range(4))
        changes: list[Packed] = []
        for _ in range(unpacker.read_array_header()):
            changes.append(unpacker.unpack())
            await pace.step()
        earlier = unpacker.unpack() if is_earlier else 0
        commits.append(_commit(time, revision, author, message, trace_parent, changes, earlier))
    checkpoints, named, control, *leases = (unpacker.unpack() for _ in range(parts - 3))
    return _entry(token, time, commits, checkpoints, named, control, *leases)


def _entry(
    token: bytes,
    time: int,
    commits: Sequence[tuple[Commit, Sequence[Packed]]],
    checkpoints: Sequence[Any],
    named: Sequence[Any],
    control: Sequence[Any] | None,
    leases: Sequence[Any] = ((), ()),
) -> Entry:
    return Entry(
        token,
        time,
        commits,
        [(name, None if made is None else checkpoint(made)) for name, made in checkpoints],
        [_named(*one) for one in named],
        None if control is None else Control(*control),
        Leases([Lease(*lease) for lease in leases[0]], leases[1]),
    )


def _plain(time: int, commits: Sequence[Commit]) -> Sequence[tuple[Any, ...]]:
    """Commits. One that is earlier than the last of them, and so than their entry, says by how much."""
    plain: list[tuple[Any, ...]] = []
    for commit in commits:
        changes = [(*entry[:MOD_REVISION], entry[MOD_REVISION + 1], int(cause)) for entry, _, cause in commit.events]
        earlier = (time - commit.time,) if commit.time != time else ()
        plain.append((commit.revision, commit.author, commit.message, commit.trace_parent, changes, *earlier))
    return plain


def _commit(
    time: int, revision: int, author: str, message: str, trace_parent: str, changes: Sequence[Packed], earlier: int = 0
) -> tuple[Commit, Sequence[Packed]]:
    return Commit(revision, time - earlier, author, message, trace_parent, ()), changes


def _named(client: str, sequence: int, awaited: int, fingerprint: int, revision: int, outcome: int | str) -> Named:
    return Named(RequestId(client, sequence, awaited), fingerprint, decode(revision, outcome))


def _leases(changes: LeaseChanges) -> tuple[Any, ...]:
    return [*map(tuple, changes.granted.values())], [*changes.ended]


def change(head: Commit, packed: Packed) -> Change:
    """One of a commit's: a large commit has so many that they are not all made in one go."""
    key, value, kind, version, created, lease, cause = packed
    return Change((key, value, kind, version, created, head.revision, lease, head.time), Cause(cause))


def event(change: Change, previous: Record | None) -> Event:
    """The event that a change is, given the version before it."""
    return Event(change.record, previous if previous is not None and previous[VERSION] else None, change.cause)


# The base


def version_field(key: str, revision: int) -> bytes:
    """The name of a version of a key."""
    return key.encode() + _SEPARATOR + b"%d" % revision


def pack_version(record: Record) -> bytes:
    return _pack((*record[KEY + 1 : MOD_REVISION], *record[MOD_REVISION + 1 :]))


def unpack_version(field: bytes, data: bytes) -> Record:
    key, _, revision = field.partition(_SEPARATOR)
    value, kind, version, created, lease, time = _unpack(data)
    return (key.decode(), value, kind, version, created, int(revision), lease, time)


def origin_field(revision: int) -> bytes:
    """The name of what a commit said."""
    return _SEPARATOR + b"%d" % revision


def is_origin(field: bytes) -> bool:
    return field.startswith(_SEPARATOR)


def pack_origin(said: Provenance) -> bytes:
    return _pack(tuple(said))


def unpack_origin(field: bytes, data: bytes) -> tuple[int, Provenance]:
    return int(field[1:]), Provenance(*_unpack(data))


# Checkpoints and outcomes


def pack_checkpoint(made: Checkpoint) -> bytes:
    return _pack(tuple(made))


def checkpoint(parts: Sequence[Any]) -> Checkpoint:
    made = Checkpoint(*parts)
    return made._replace(labels=tuple((key, value) for key, value in made.labels))


def unpack_checkpoint(data: bytes) -> Checkpoint:
    return checkpoint(_unpack(data))


def client_field(client: str) -> bytes:
    return client.encode()


def outcome_field(client: str, sequence: int) -> bytes:
    return client.encode() + _SEPARATOR + b"%d" % sequence


def split_outcome_field(field: bytes) -> tuple[str, int | None]:
    """The client, and the sequence of its outcome; None: the field is of the client itself."""
    client, separator, sequence = field.partition(_SEPARATOR)
    return client.decode(), int(sequence) if separator else None


def pack_client(awaited: int, says_awaited: bool) -> bytes:
    return _pack((awaited, says_awaited))


def unpack_client(data: bytes) -> tuple[int, bool]:
    awaited, says_awaited = _unpack(data)
    return awaited, says_awaited


def pack_outcome(fingerprint: int, outcome: Outcome) -> bytes:
    return _pack((fingerprint, outcome.revision, encode(outcome)))


def remembered(requests: Requests) -> Known:
    """What is remembered now, which may change meanwhile."""
    return [(client, awaited, says, [*outcomes.items()]) for client, awaited, says, outcomes in requests.all()]


def remembered_rows(known: Known) -> Iterator[Row]:
    """Fields and values: of each client, and of each of its outcomes."""
    for client, awaited, says_awaited, outcomes in known:
        yield client_field(client), pack_client(awaited, says_awaited)
        for sequence, one in outcomes:
            yield outcome_field(client, sequence), pack_outcome(one.fingerprint, one.outcome)


def unpack_outcome(data: bytes) -> tuple[int, Outcome]:
    fingerprint, revision, outcome = _unpack(data)
    return fingerprint, decode(revision, outcome)


def pack_lease(lease: Lease) -> bytes:
    """As scripts read it too: the ttl comes first."""
    return f"{lease.ttl} {lease.ends_with_keys:d} {lease.create_time} {lease.author}".encode()


def unpack_lease(field: bytes, data: bytes) -> Lease:
    ttl, ends_with_keys, create_time, author = data.decode().split(" ", 3)
    return Lease(int(field), int(ttl), author, int(create_time), ends_with_keys=ends_with_keys == "1")


def heir_field(hold: str) -> bytes:
    """The name of what a fork holds."""
    return _SEPARATOR + hold.encode()


def is_heir(field: bytes) -> bool:
    return field.startswith(_SEPARATOR)


def pack_heir(held: Held) -> bytes:
    return _pack((held.revision, *held.totals))


def unpack_heir(field: bytes, data: bytes) -> tuple[str, Held]:
    revision, keys, size_bytes = _unpack(data)
    return field[1:].decode(), Held(revision, Totals(keys, size_bytes))


def totals(made: Checkpoint) -> Totals:
    return Totals(made.key_count, made.size_bytes)


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=False)
