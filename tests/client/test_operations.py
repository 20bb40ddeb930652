"""Conditions and operations, and what they become on the wire."""

import pytest

from comity import Delete, Get, Increment, Key, List, Prefix, Put, requests
from comity.operations import Condition
from comity.v1 import state_pb2


def wire(**fields: object) -> state_pb2.Condition:
    return state_pb2.Condition(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Key("k").exists(), wire(key="k", exists=True, operator="OPERATOR_EQUAL")),
        (Key("k").absent(), wire(key="k", exists=False, operator="OPERATOR_EQUAL")),
        (Key("k").version == 3, wire(key="k", version=3, operator="OPERATOR_EQUAL")),
        (Key("k").version != 0, wire(key="k", version=0, operator="OPERATOR_NOT_EQUAL")),
        (Key("k").mod_revision < 3, wire(key="k", mod_revision=3, operator="OPERATOR_LESS")),
        (Key("k").mod_revision <= 3, wire(key="k", mod_revision=3, operator="OPERATOR_LESS_OR_EQUAL")),
        (Key("k").create_revision > 3, wire(key="k", create_revision=3, operator="OPERATOR_GREATER")),
        (Key("k").create_revision >= 3, wire(key="k", create_revision=3, operator="OPERATOR_GREATER_OR_EQUAL")),
        (Key("k").value == {"a": 1}, wire(key="k", value=b'{"a":1}', operator="OPERATOR_EQUAL")),
        (Key("k").value > b"a", wire(key="k", value=b"a", operator="OPERATOR_GREATER")),
        (Key("k").lease_id == 0, wire(key="k", lease_id=0, operator="OPERATOR_EQUAL")),
        (Key("k").unchanged_since(7), wire(key="k", unchanged_since=7, operator="OPERATOR_EQUAL")),
        (Prefix("p/").unchanged_since(0), wire(prefix="p/", unchanged_since=0, operator="OPERATOR_EQUAL")),
    ],
)
def test_conditions(condition: Condition, expected: state_pb2.Condition) -> None:
    sent = requests.condition(condition)
    assert sent == expected
    assert sent.WhichOneof("test") == expected.WhichOneof("test")


def test_a_condition_is_no_truth_value() -> None:
    with pytest.raises(TypeError, match="judged by the server"):
        bool(Key("a").exists())


@pytest.mark.parametrize("right", ["3", 3.0, True, None])
def test_numbers_are_compared_with_numbers(right: int) -> None:
    with pytest.raises(TypeError, match="int"):
        assert Key("k").version == right


def test_operations() -> None:
    request = requests.transact(
        "n",
        conditions=[],
        then=[
            Get("k"),
            List("p/", limit=3, keys_only=True),
            Put("k", {"a": 1}, return_previous=True),
            Put("t", "text", content_type="text/plain"),
            Delete("k", return_previous=True),
            Delete(prefix=""),
            Increment("n", by=-2),
        ],
        otherwise=[Get("k")],
    )
    get, listed, put, text, delete, delete_all, increment = request.then
    assert get.get.key == "k"
    assert (listed.list.prefix, listed.list.limit, listed.list.keys_only) == ("p/", 3, True)
    assert (put.put.value, put.put.content_type, put.put.return_previous) == (b'{"a":1}', "application/json", True)
    assert (text.put.value, text.put.content_type) == (b"text", "text/plain")
    assert (delete.delete.key, delete.delete.return_previous) == ("k", True)
    assert delete_all.delete.WhichOneof("target") == "prefix"
    assert (increment.increment.key, increment.increment.delta) == ("n", -2)
    assert [operation.get.key for operation in request.otherwise] == ["k"]


def test_a_delete_takes_a_key_or_a_prefix() -> None:
    with pytest.raises(TypeError):
        Delete()
    with pytest.raises(TypeError):
        Delete("k", prefix="p/")


def test_version_0_is_a_condition_and_none_is_not() -> None:
    plain = requests.put("n", "k", 1, content_type=None, if_version=None, if_revision=None, return_previous=False)
    assert not plain.HasField("if_version")
    absent = requests.put("n", "k", 1, content_type=None, if_version=0, if_revision=None, return_previous=False)
    assert absent.HasField("if_version")
