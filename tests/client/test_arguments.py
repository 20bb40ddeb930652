"""Arguments that do not fit: the error names them, and says what they should be."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import comity
from comity import Client, Delete, Get, Increment, Key, Prefix, Put, RequestId

Call = Callable[[Any], Awaitable[object]]

TYPE_ERRORS: list[tuple[str, Call]] = [
    ("key must be a str, not int", lambda state: state.get(3)),
    ("key must be a str, not int", lambda state: state.put(3, 1)),
    ("key must be a str, not int", lambda state: state.delete(3)),
    ("prefix must be a str, not int", lambda state: state.delete(prefix=3)),
    ("prefix must be a str, not int", lambda state: state.list(3).all()),
    ("prefix must be a str, not int", lambda state: state.history(3).all()),
    ("prefix must be a str, not int", lambda state: state.blame(3).all()),
    ("prefix must be a str, not int", lambda state: anext(state.namespaces(3))),
    ("revision must be a whole number of 64 bits, not str", lambda state: state.get("a", revision="3")),
    ("revision must be a whole number of 64 bits, not float", lambda state: state.compact(1.5)),
    ("if_version must be a whole number of 64 bits, not str", lambda state: state.put("a", 1, if_version="1")),
    ("keys_only must be True or False, not str", lambda state: state.list(keys_only="no").all()),
    ("content_type must be a str, not int", lambda state: state.put("a", b"", content_type=3)),
    ("message must be a str, not int", lambda state: state.put("a", 1, message=3)),
    ("author must be a str, not int", lambda state: state.with_options(author=3).put("a", 1)),
    ("namespace must be a str, not int", lambda state: state.with_options(namespace=3).get("a")),
    ("timeout must be a number of seconds above 0, not str", lambda state: state.get("a", timeout="1")),
    ("request_id must be a comity.RequestId, not str", lambda state: state.put("a", 1, request_id="x")),
    ("request_id.client must be a str, not int", lambda state: state.put("a", 1, request_id=RequestId(1, 1))),  # type: ignore[arg-type]
    ("labels must be a mapping of str to str, not dict", lambda state: state.checkpoint("mark", labels={"a": 1})),
    ("name must be a str, not int", lambda state: state.checkpoint(3)),
    ("name must be a str, not int", lambda state: state.fork(3)),
    ("fork must be a str, not int", lambda state: state.merge(3)),
    ("key must be a str, not int", lambda state: state.cell(3, int).set(1)),
    (
        r"conditions\[0\]: it must be a condition, .*, not bool",
        lambda state: state.transact(conditions=[Key("a") == 3]),  # type: ignore[comparison-overlap]
    ),
    (
        r"conditions\[1\]: it must be a condition, .*, not Comparable",
        lambda state: state.transact(conditions=[Key("a").exists(), Key("a").version]),
    ),
    ("conditions must be a list, not Condition", lambda state: state.transact(conditions=Key("a").exists())),
    (r"conditions\[0\]: key must be a str, not int", lambda state: state.transact(conditions=[Key(3).absent()])),  # type: ignore[arg-type]
    (
        r"conditions\[0\]: unchanged_since must be a whole number of 64 bits, not str",
        lambda state: state.transact(conditions=[Prefix("").unchanged_since("1")]),  # type: ignore[arg-type]
    ),
    (r"then\[1\]: it must be a Get, .*, not int", lambda state: state.transact(then=[Get("a"), 1])),
    ("then must be a list, not Get", lambda state: state.transact(then=Get("a"))),
    (r"then\[0\]: key must be a str, not int", lambda state: state.transact(then=[Put(3, 1)])),  # type: ignore[arg-type]
    (r"then\[0\]: a value of type object cannot", lambda state: state.transact(then=[Put("a", object())])),
    (r"otherwise\[0\]: by must be .*, not str", lambda state: state.transact(otherwise=[Increment("a", "1")])),  # type: ignore[arg-type]
    (r"then\[0\]: prefix must be a str, not int", lambda state: state.transact(then=[Delete(prefix=3)])),  # type: ignore[arg-type]
    ("function must take a Transaction, not be of type list", lambda state: state.transact([Put("a", 1)])),
    ("key must be a str, not int", lambda state: state.transact(lambda tx: tx.get(3))),
    ("prefix must be a str, not int", lambda state: state.transact(lambda tx: tx.list(3))),
    ("key must be a str, not int", lambda state: state.transact(lambda tx: tx.put(3, 1))),
    ("key must be a str, not int", lambda state: state.transact(lambda tx: tx.delete(3))),
    ("prefix must be a str, not int", lambda state: state.transact(lambda tx: tx.delete(prefix=3))),
    ("by must be a whole number, not str", lambda state: state.transact(lambda tx: tx.increment("a", "1"))),
    ("from_revision must be a whole number of 64 bits, not str", lambda state: state.watch(from_revision="1").ready()),
    ("epoch must be a str, not int", lambda state: state.watch(from_revision=1, epoch=3).ready()),
    ("epoch goes with from_revision", lambda state: state.watch(epoch="e").ready()),
    ("prefix must be a str, not int", lambda state: state.watch(3).ready()),
    ("key must be a str, not int", lambda state: state.watch(key=3).ready()),
    (r"types\[0\]: it must be a comity.EventType, not str", lambda state: state.watch(types=["put"]).ready()),
    ("types must be a list, not EventType", lambda state: state.watch(types=comity.EventType.PUT).ready()),
    (
        "progress_interval must be a number of seconds, not str",
        lambda state: state.watch(progress_interval="1").ready(),
    ),
]
VALUE_ERRORS: list[tuple[str, Call]] = [
    (f"revision must be a whole number of 64 bits, not {2**70}", lambda state: state.get("a", revision=2**70)),
    (f"page_size must be a whole number of 32 bits, not {2**40}", lambda state: state.list(page_size=2**40).all()),
    ("key must be Unicode: ", lambda state: state.put("\ud800", 1)),
    ("key must be Unicode: ", lambda state: state.get("\ud800")),
    (r"then\[0\]: key must be Unicode: ", lambda state: state.transact(lambda tx: tx.put("\ud800", 1))),
    ("message must be Unicode: ", lambda state: state.delete("a", message="\ud800")),
    ("text that is not Unicode", lambda state: state.put("a", "\ud800", content_type="text/plain")),
    (r"^conditions\[0\]: version must be ", lambda state: state.transact(conditions=[Key("a").version == 2**64])),
    (r"then\[0\]: by must be .* 64 bits, not ", lambda state: state.transact(then=[Increment("a", 2**64)])),
    ("request_id.sequence must be ", lambda state: state.put("a", 1, request_id=RequestId("x", 2**64))),
]


@pytest.mark.parametrize(("text", "call"), TYPE_ERRORS)
async def test_a_wrong_type(state: Client, text: str, call: Call) -> None:
    with pytest.raises(TypeError, match=f"^{text}"):
        await call(state)


@pytest.mark.parametrize(("text", "call"), VALUE_ERRORS)
async def test_a_wrong_value(state: Client, text: str, call: Call) -> None:
    with pytest.raises(ValueError, match=text) as raised:
        await call(state)
    assert not isinstance(raised.value, UnicodeError)


def test_no_address() -> None:
    with pytest.raises(TypeError, match=r"address must be a str, HOST:PORT.*, not list"):
        comity.connect(["a:1"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout must be a number of seconds above 0, not str"):
        comity.connect(timeout="1")  # type: ignore[arg-type]
