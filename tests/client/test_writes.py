"""The writes of a transaction function: one a key, and seen by its reads."""

import pytest

import comity
from comity import Delete, Entry, Increment, Put
from comity.convert import EPOCH
from comity.writes import Writes

JSON = "application/json"


def stored(key: str, data: bytes = b"1") -> Entry:
    return Entry(key, data, JSON, 1, 1, 1, 0, EPOCH)


def put(key: str, data: bytes) -> Put:
    return Put(key, data, JSON)


def test_the_last_write_of_a_key_counts() -> None:
    writes = Writes()
    writes.put("a", 1, None)
    writes.put("b", 1, None)
    writes.put("a", 2, None)
    assert list(writes.operations()) == [put("b", b"1"), put("a", b"2")]
    writes.delete("a")
    assert list(writes.operations()) == [put("b", b"1"), Delete("a")]
    writes.put("a", "text", "text/plain")
    assert list(writes.operations()) == [put("b", b"1"), Put("a", b"text", "text/plain")]


def test_increments_add_up() -> None:
    writes = Writes()
    writes.increment("n", 2)
    writes.increment("n", -5)
    assert list(writes.operations()) == [Increment("n", -3)]


def test_an_increment_of_what_was_written_is_a_put() -> None:
    writes = Writes()
    writes.put("n", 40, None)
    writes.increment("n", 2)
    writes.delete("d")
    writes.increment("d", 7)
    assert list(writes.operations()) == [put("n", b"42"), put("d", b"7")]


def test_a_put_or_delete_takes_the_place_of_an_increment() -> None:
    writes = Writes()
    writes.increment("n", 2)
    writes.put("n", 1, None)
    writes.increment("m", 2)
    writes.delete("m")
    assert list(writes.operations()) == [put("n", b"1"), Delete("m")]


@pytest.mark.parametrize("value", ["text", 1.5, {"a": 1}, 2**53, b"007", b" 7", b"+7", b""])
def test_what_is_no_whole_number_cannot_be_incremented(value: object) -> None:
    writes = Writes()
    writes.put("n", value, None)
    with pytest.raises(comity.FailedPrecondition, match="'n'") as caught:
        writes.increment("n", 1)
    assert caught.value.reason == "NOT_A_NUMBER"


def test_a_sum_stays_exact_in_every_language() -> None:
    writes = Writes()
    writes.increment("n", 1)
    with pytest.raises(comity.FailedPrecondition):
        writes.entry("n", stored("n", b"%d" % (2**53 - 1)))


def test_reads_see_the_writes() -> None:
    writes = Writes()
    writes.put("a", {"x": 1}, None)
    writes.increment("n", 2)
    writes.delete("d")
    written = writes.entry("a", None)
    assert written is not None
    assert (written.value, written.version, written.mod_revision) == ({"x": 1}, 0, 0)
    added = writes.entry("n", stored("n", b"40"))
    assert added is not None
    assert added.value == 42
    from_nothing = writes.entry("n", None)
    assert from_nothing is not None
    assert from_nothing.value == 2
    assert writes.entry("d", stored("d")) is None
    assert writes.entry("other", stored("other")) == stored("other")


def test_only_what_depends_on_the_stored_entry_is_read() -> None:
    writes = Writes()
    writes.put("a", 1, None)
    writes.delete("d")
    writes.increment("n", 1)
    writes.delete_prefix("p/")
    assert [key for key in ("a", "d", "n", "p/x", "other") if writes.decides(key)] == ["a", "d", "p/x"]


def test_lists_see_the_writes_in_the_order_of_utf8() -> None:
    writes = Writes()
    writes.put("p/\U0001f600", 1, None)
    writes.put("p/\uffff", 1, None)
    writes.delete("p/b")
    writes.increment("p/n", 1)
    writes.put("q", 1, None)
    listed = writes.entries("p/", [stored("p/a"), stored("p/b"), stored("p/n", b"1")])
    assert [entry.key for entry in listed] == ["p/a", "p/n", "p/\uffff", "p/\U0001f600"]
    assert listed[1].value == 2


def test_a_deleted_prefix_takes_the_writes_under_it() -> None:
    writes = Writes()
    writes.put("p/a", 1, None)
    writes.put("q", 1, None)
    writes.delete_prefix("p/")
    assert list(writes.operations()) == [Delete(prefix="p/"), put("q", b"1")]
    assert writes.entry("p/b", stored("p/b")) is None
    assert writes.entries("p/", [stored("p/a"), stored("p/b")]) == []


def test_deleted_prefixes_do_not_overlap() -> None:
    writes = Writes()
    writes.delete_prefix("a/b/")
    writes.delete_prefix("c/")
    writes.delete_prefix("a/")
    writes.delete_prefix("a/z/")
    writes.delete("a/b/c")
    assert list(writes.operations()) == [Delete(prefix="c/"), Delete(prefix="a/")]


def test_a_write_under_a_deleted_prefix_makes_it_a_delete_of_each_key() -> None:
    writes = Writes()
    writes.delete_prefix("p/")
    writes.delete_prefix("q/")
    writes.put("p/a", 1, None)
    writes.increment("p/n", 5)
    assert writes.overlapping() == ["p/"]
    assert list(writes.operations([stored("p/a"), stored("p/b"), stored("p/n")])) == [
        Delete(prefix="q/"),
        Delete("p/b"),
        put("p/a", b"1"),
        put("p/n", b"5"),
    ]
    writes.delete("p/a")
    writes.delete("p/n")
    assert writes.overlapping() == []
    assert list(writes.operations()) == [Delete(prefix="p/"), Delete(prefix="q/")]


def test_values_are_encoded_when_they_are_written() -> None:
    writes = Writes()
    value = [1]
    writes.put("a", value, None)
    value.append(2)
    assert list(writes.operations()) == [put("a", b"[1]")]
    with pytest.raises(TypeError):
        writes.put("b", object(), None)
    assert list(writes.operations()) == [put("a", b"[1]")]


def test_increments_that_come_to_too_much_together_are_refused() -> None:
    writes = Writes()
    writes.increment("n", 2**53 - 1)
    with pytest.raises(comity.FailedPrecondition, match="'n'"):
        writes.increment("n", 1)
