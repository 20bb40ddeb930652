"""What a prefix has of a commit is what a look at each event finds, and costs less."""

from collections.abc import Iterator, Sequence
from typing import overload

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity_server import pieces, runs
from comity_server.model import Commit, Event, within
from comity_server.pieces import Interest, Large, Piece
from comity_server.record import KEY, Record
from comity_server.runs import Selection, event_bytes, find_runs
from comity_server.topics import Followed, Topic
from comity_server.turns import Pace


def event(key: str, *, deleted: bool = False) -> Event:
    record: Record = (key, b"", "", 0 if deleted else 1, 1, 1, 0, 0)
    return Event(record, None)


def commit(events: Sequence[Event], revision: int = 1) -> Commit:
    return Commit(revision, 0, "", "", "", events)


KINDS = [(True, True), (True, False), (False, True)]

keys = st.text("abü", min_size=1, max_size=4)
some_events = st.dictionaries(keys, st.booleans(), max_size=40).map(
    lambda drawn: [event(key, deleted=deleted) for key, deleted in drawn.items()]
)


@given(some_events, st.text("abü", max_size=3), st.booleans(), st.sampled_from(KINDS), st.integers(1, 9))
async def test_what_is_found_is_what_a_look_at_each_finds(
    events: list[Event], target: str, is_prefix: bool, kinds: tuple[bool, bool], step: int
) -> None:
    puts, deletes = kinds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "STEP", step)
        patch.setattr(pieces, "LARGE", 2)
        interest = Interest(target, is_prefix, puts, deletes)
        piece = await Large(object(), commit(events)).piece(interest, Pace())
    expected = [
        each for each in events if within(each.entry[KEY], target, is_prefix) and (deletes if each.is_delete else puts)
    ]
    assert list(piece.events if piece else ()) == expected
    assert (piece.size if piece else 0) == sum(map(event_bytes, expected))


@given(some_events, st.data())
async def test_a_selection_is_a_sequence(events: list[Event], data: st.DataObject) -> None:
    places = st.integers(0, max(len(events) - 1, 0))
    parts = [sorted(data.draw(st.sets(places))) if events else [] for _ in range(3)]
    selection, expected = Selection(events, parts), [events[place] for part in parts for place in part]
    assert list(selection) == [selection[place] for place in range(len(selection))] == expected
    assert [selection[place] for place in range(-len(selection), 0)] == expected
    start, stop = data.draw(st.integers(-5, 30)), data.draw(st.integers(-5, 30))
    assert list(selection[start:stop]) == expected[start:stop]
    with pytest.raises(IndexError):
        selection[len(expected)]


async def test_a_commit_of_ascending_keys_is_one_run() -> None:
    assert len(await find_runs([event(f"{number:05}") for number in range(5000)], Pace())) == 1
    assert len(await find_runs([event(key) for key in "abcabdxay"], Pace())) == 3


class Counted(Sequence[Event]):
    """Events that count how often one is looked at."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self.looks = 0

    def __len__(self) -> int:
        return len(self._events)

    @overload
    def __getitem__(self, place: int) -> Event: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Event]: ...

    def __getitem__(self, place: int | slice) -> Event | Sequence[Event]:
        found = self._events[place]
        self.looks += len(found) if isinstance(place, slice) else 1
        return found

    def __iter__(self) -> Iterator[Event]:
        for place in range(len(self)):
            yield self[place]


WATCHES = 300
EVENTS = 20_000


async def shown(followed: Followed) -> None:
    assert followed._showing is not None
    await followed._showing


@pytest.mark.parametrize("descending", [0, 3])
async def test_watches_of_many_prefixes_neither_look_at_each_event_nor_list_it(
    descending: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each watches a prefix of what the one before does, and all events are under each."""
    published: list[Piece] = []
    monkeypatch.setattr(Topic, "publish", lambda topic, piece: published.append(piece))
    followed = Followed("n")
    for length in range(1, WATCHES + 1):
        followed.join(Interest("k" * length, True), 0)
    followed.join(Interest("k" * WATCHES + "00007", False), 0)
    first = [event("k" * WATCHES + str(9 - number)) for number in range(descending)]
    events = Counted([*first, *(event("k" * WATCHES + f"{number:05}") for number in range(EVENTS))])
    followed.publish([commit(events)])
    await shown(followed)
    assert len(published) == WATCHES + 1
    exact, shared = set(published[:1]), set(published[1:])
    assert [len(piece.events) for piece in exact] == [1]
    assert [len(piece.events) for piece in shared] == [EVENTS + descending], "all show the same"
    assert events.looks < 4 * EVENTS + WATCHES * 40 * (1 + descending)
    assert followed.revision == 1


async def test_lengths_of_prefixes_that_are_longer_than_a_key_cost_it_nothing() -> None:
    class Never(dict[str, list[Topic]]):
        def get(self, *_: object) -> list[Topic]:
            raise AssertionError

    followed = Followed("n")
    topic = followed.join(Interest("", True), 0)
    followed.join(Interest("k" * 5, True), 0)
    followed._by_prefix[5] = Never()
    short = followed.join(Interest("k", True), 0)
    followed.publish([commit([event("kk")])])
    assert topic.pieces[0] is short.pieces[0], "what shows the whole is one piece"


async def test_a_piece_of_a_commit_keeps_nothing_of_the_rest() -> None:
    followed = Followed("n")
    topic = followed.join(Interest("a", True), 0)
    followed.publish([commit([event("a"), event("b")])])
    assert topic.pieces[0].commit.events == ()


async def test_a_history_that_ends_is_shown_no_further() -> None:
    followed = Followed("n")
    old = followed.join(Interest("k", True), 0)
    followed.publish([commit([event(f"k{number}") for number in range(EVENTS)])])
    assert followed._showing is not None
    followed.reset()
    new = followed.join(Interest("k", True), 0)
    followed.publish([commit([event("k")])])
    assert [len(piece.events) for piece in new.pieces] == [1]
    assert not old.pieces
    assert followed.revision == 1
