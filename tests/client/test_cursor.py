"""What a watch hands out of the messages of its streams, and the bookmark beside it."""

from comity import Commit, Event, Resync
from comity.cursor import Cursor, Item
from comity.v1 import state_pb2, types_pb2


def commit(revision: int, *keys: str, partial: bool = False) -> types_pb2.Commit:
    events = [types_pb2.Event(type="EVENT_TYPE_PUT", entry=types_pb2.Entry(key=key)) for key in keys]
    return types_pb2.Commit(revision=revision, events=events, partial=partial)


def message(revision: int, *commits: types_pb2.Commit) -> state_pb2.WatchResponse:
    return state_pb2.WatchResponse(revision=revision, commits=commits)


def name(item: Item) -> object:
    if isinstance(item, Event):
        return item.key
    if isinstance(item, Commit):
        return item.revision, [event.key for event in item.events]
    return item


def drain(cursor: Cursor) -> list[tuple[object, int]]:
    """What can be taken, each with the bookmark after it."""
    taken = []
    while (item := cursor.take()) is not None:
        taken.append((name(item), cursor.revision))
    return taken


def test_the_bookmark_passes_a_commit_with_its_last_event() -> None:
    cursor = Cursor(10)
    cursor.receive(message(15, commit(12, "a", "b"), commit(13, "c")), whole=False)
    assert cursor.revision == 10
    assert drain(cursor) == [("a", 11), ("b", 12), ("c", 15)]


def test_a_quiet_stream_moves_the_bookmark() -> None:
    cursor = Cursor(10)
    cursor.receive(message(20), whole=False)
    assert cursor.revision == 20
    assert cursor.take() is None


def test_progress_does_not_overtake_what_was_not_taken() -> None:
    cursor = Cursor(10)
    cursor.receive(message(11, commit(11, "a")), whole=False)
    cursor.receive(message(20), whole=False)
    assert cursor.revision == 10
    assert drain(cursor) == [("a", 20)]


def test_inside_of_a_commit_the_bookmark_stays_below_it() -> None:
    cursor = Cursor(10)
    cursor.receive(message(11, commit(12, "a", "b", partial=True)), whole=False)
    assert drain(cursor) == [("a", 11), ("b", 11)]
    cursor.receive(message(11, commit(12, "c", partial=True)), whole=False)
    assert drain(cursor) == [("c", 11)]
    cursor.receive(message(12, commit(12, "d")), whole=False)
    assert drain(cursor) == [("d", 12)]


def test_a_commit_that_is_sent_again_goes_on_where_it_broke() -> None:
    cursor = Cursor(10)
    cursor.receive(message(10, commit(11, "a", "b", partial=True)), whole=False)
    assert drain(cursor) == [("a", 10), ("b", 10)]
    cursor.begin()  # from revision 11, in other parts
    cursor.receive(message(10, commit(11, "a", partial=True)), whole=False)
    assert drain(cursor) == []
    cursor.begin()  # and once more, before it came as far as the first time
    cursor.receive(message(10, commit(11, "a", "b", "c", partial=True)), whole=False)
    assert drain(cursor) == [("c", 10)]
    cursor.receive(message(12, commit(11, "d"), commit(12, "a")), whole=False)
    assert drain(cursor) == [("d", 11), ("a", 12)]


def test_the_last_part_may_have_nothing_new() -> None:
    cursor = Cursor(10)
    cursor.receive(message(10, commit(11, "a", "b", partial=True)), whole=False)
    drain(cursor)
    cursor.begin()
    cursor.receive(message(11, commit(11, "a", "b")), whole=False)
    assert drain(cursor) == []
    assert cursor.revision == 11


def test_whole_commits_are_joined() -> None:
    cursor = Cursor(10)
    cursor.receive(message(11, commit(11, "x"), commit(12, "a", partial=True)), whole=True)
    assert drain(cursor) == [((11, ["x"]), 11)]
    cursor.receive(message(11, commit(12, "b", partial=True)), whole=True)
    assert drain(cursor) == []
    assert cursor.revision == 11
    cursor.receive(message(13, commit(12, "c"), commit(13, "y")), whole=True)
    assert drain(cursor) == [((12, ["a", "b", "c"]), 12), ((13, ["y"]), 13)]


def test_a_whole_commit_begins_again_with_a_new_stream() -> None:
    cursor = Cursor(10)
    cursor.receive(message(10, commit(11, "a", partial=True)), whole=True)
    cursor.begin()
    cursor.receive(message(10, commit(11, "a", partial=True)), whole=True)
    cursor.receive(message(11, commit(11, "b")), whole=True)
    assert drain(cursor) == [((11, ["a", "b"]), 11)]


def test_a_resync_sets_the_bookmark_also_backwards() -> None:
    cursor = Cursor(100, "old")
    cursor.receive(message(100, commit(101, "a", partial=True)), whole=False)
    drain(cursor)
    cursor.begin()
    cursor.resync(7, (), "new")
    assert (cursor.revision, cursor.epoch) == (100, "old")
    assert drain(cursor) == [(Resync(7, (), "new"), 7)]
    assert cursor.epoch == "new"
    cursor.receive(message(9, commit(8, "a")), whole=False)
    assert drain(cursor) == [("a", 9)]
