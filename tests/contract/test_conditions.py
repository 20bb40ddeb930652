"""What a condition says of a key, in every state that a key can be in, and of a prefix, phantoms included."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from comity_server.errors import Compacted, RevisionInFuture
from comity_server.model import Condition, Delete, FailedCondition, Get, Operation, Operator, Put, Test, Transaction
from comity_server.record import LEASE_ID, Record
from tests.contract.space import Space, plain

OPERATORS: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}
NUMBERS = [Test.VERSION, Test.CREATE_REVISION, Test.MOD_REVISION]
STATES = ["absent", "written", "deleted", "created again"]


@pytest.fixture
async def states(space: Space) -> Space:
    """A key in each state. "written" is at version 2, created at revision 1, last written at 3."""
    for key in ("written", "deleted", "written", "deleted", "created again"):
        await space.put(key, b"m\0")
    await space.delete("deleted")
    await space.delete("created again")
    await space.put("created again", b"m\0")
    await space.put("later")
    return space


async def holds(space: Space, *conditions: Condition) -> bool:
    """Whether all conditions hold. Writes nothing."""
    outcome = await space.apply(Get("written"), conditions=conditions)
    assert outcome.committed == (not outcome.failed)
    assert len(outcome.results) == outcome.committed
    return outcome.committed


@pytest.mark.parametrize("compare", Operator)
@pytest.mark.parametrize("test", NUMBERS)
@pytest.mark.parametrize("key", STATES)
async def test_number_of_a_key(states: Space, key: str, test: Test, compare: Operator) -> None:
    record = await states.get(key)
    found = record[test] if record else 0  # the numbers of an absent key are all 0
    assert isinstance(found, int)
    for operand in {0, max(0, found - 1), found, found + 1, 2**53}:
        expected = OPERATORS[compare](found, operand)
        assert await holds(states, Condition(key, test, operand, compare)) == expected, (found, operand)


@pytest.mark.parametrize("compare", Operator)
@pytest.mark.parametrize("key", STATES)
async def test_value_of_a_key(states: Space, key: str, compare: Operator) -> None:
    record = await states.get(key)
    for operand in (b"", b"m", b"m\0", b"m\0\0", b"m\1", b"l\xff", b"n", b"\x80", b"\xff"):
        # By bytes, each from 0 to 255. Of an absent key it is false, whatever the operator.
        expected = record is not None and OPERATORS[compare](record[1], operand)
        assert await holds(states, Condition(key, Test.VALUE, operand, compare)) == expected, operand


@pytest.mark.parametrize("key", STATES)
async def test_existence_of_a_key(states: Space, key: str) -> None:
    exists = await states.get(key) is not None
    assert await holds(states, Condition(key, Test.EXISTS, 1)) == exists
    assert await holds(states, Condition(key, Test.EXISTS, 0)) != exists


@pytest.mark.parametrize("key", STATES)
async def test_lease_of_a_key_that_lives_by_none(states: Space, key: str) -> None:
    record = await states.get(key)
    assert record is None or record[LEASE_ID] == 0
    assert await holds(states, Condition(key, Test.LEASE_ID, 0))
    assert not await holds(states, Condition(key, Test.LEASE_ID, 7))
    assert await holds(states, Condition(key, Test.LEASE_ID, 7, Operator.NOT_EQUAL))
    assert not await holds(states, Condition(key, Test.LEASE_ID, 0, Operator.NOT_EQUAL))


async def test_key_unchanged_since_a_revision_means_neither_put_nor_deleted_after_it(states: Space) -> None:
    newest = await states.revision()
    changed = {
        key: max(
            (commit.revision for commit in await states.log() if commit.events[0].entry[0] == key),
            default=0,
        )
        for key in STATES
    }
    assert changed == {"absent": 0, "written": 3, "deleted": 6, "created again": 8}
    for key, revision in changed.items():
        for since in range(newest + 1):
            condition = Condition(key, Test.UNCHANGED_SINCE, since)
            assert await holds(states, condition) == (revision <= since), (key, since)


async def test_all_conditions_must_hold(states: Space) -> None:
    exists, absent = Condition("written", Test.EXISTS, 1), Condition("absent", Test.EXISTS, 0)
    assert await holds(states)
    assert await holds(states, exists, absent, Condition("written", Test.VERSION, 2))
    assert not await holds(states, exists, absent, Condition("written", Test.VERSION, 3))
    assert not await holds(states, Condition("absent", Test.EXISTS, 1), exists)


async def test_conditions_see_the_state_before_the_transaction(space: Space) -> None:
    outcome = await space.apply(Put("a", b"1"), Get("a"), conditions=[Condition("a", Test.EXISTS, 0)])
    assert outcome.committed
    outcome = await space.apply(Delete("a"), conditions=[Condition("", Test.UNCHANGED_SINCE, 1, is_prefix=True)])
    assert outcome.committed


@pytest.fixture
async def plans(space: Space) -> Space:
    """Revision 1: plan/a, 2: plan/b, 3: plan (not under the prefix), 4: plan0 (just past it), 5: plan/b deleted."""
    for key in ("plan/a", "plan/b", "plan", "plan0"):
        await space.put(key)
    await space.delete("plan/b")
    return space


def unchanged(prefix: str, since: int) -> Condition:
    return Condition(prefix, Test.UNCHANGED_SINCE, since, is_prefix=True)


async def test_prefix_unchanged_since_its_last_change_and_not_before(plans: Space) -> None:
    changes = {"plan/": 5, "plan/a": 1, "plan/b": 5, "plan": 5, "plan0": 4, "": 5, "plan/c": 0, "q": 0, "plan/bb": 0}
    for prefix, revision in changes.items():
        for since in range(await plans.revision() + 1):
            assert await holds(plans, unchanged(prefix, since)) == (revision <= since), (prefix, since)


@pytest.mark.parametrize("phantom", ["create", "overwrite", "delete", "delete what was created meanwhile"])
async def test_write_after_a_list_fails_on_phantoms(plans: Space, phantom: str) -> None:
    seen = await plans.revision()
    assert await plans.keys("plan/") == ["plan/a"]
    match phantom:
        case "create":
            await plans.put("plan/\U0010ffff")
        case "overwrite":
            await plans.put("plan/a")
        case "delete":
            await plans.delete("plan/a")
        case _:  # the listing is as it was, and yet it is not
            await plans.put("plan/c")
            await plans.delete_prefix("plan/c")
    changed = await plans.revision()
    await plans.put("elsewhere")
    outcome = await plans.apply(Put("plan/z", b""), conditions=[unchanged("plan/", seen)])
    assert not outcome.committed
    assert plain(outcome.failed) == plain([FailedCondition(0, None, changed)])
    assert (await plans.apply(Put("plan/z", b""), conditions=[unchanged("plan/", changed)])).committed


async def test_prefix_condition_sees_the_group_before_it(plans: Space) -> None:
    first, second = await plans.outcomes(
        Transaction([unchanged("plan/", 5)], [Put("plan/1", b"")]),
        Transaction([unchanged("plan/", 5)], [Put("plan/2", b"")]),
    )
    assert (first.committed, second.committed) == (True, False)
    assert second.failed[0].changed_revision == first.revision == 6


@pytest.mark.parametrize(("target", "is_prefix"), [("plan/a", False), ("plan/", True), ("", True), ("never", False)])
async def test_unchanged_since_outside_of_history_is_an_error(plans: Space, target: str, is_prefix: bool) -> None:
    with pytest.raises(RevisionInFuture):
        await plans.apply(Put("x", b""), conditions=[Condition(target, Test.UNCHANGED_SINCE, 6, is_prefix=is_prefix)])
    await plans.store.compact(plans.name, 4)
    with pytest.raises(Compacted) as refused:
        await plans.apply(
            Put("x", b""),
            conditions=[Condition(target, Test.UNCHANGED_SINCE, 3, is_prefix=is_prefix)],
            otherwise=[Put("y", b"")],
        )
    assert refused.value.metadata == {"floor": "4", "revision": "5"}
    assert await plans.revision() == 5
    changed_after_4 = target in ("plan/", "")
    at_the_floor = Condition(target, Test.UNCHANGED_SINCE, 4, is_prefix=is_prefix)
    assert await holds(plans, at_the_floor) != changed_after_4


async def test_failed_conditions_tell_what_was_found_instead(plans: Space) -> None:
    conditions = [
        Condition("plan/a", Test.EXISTS, 1),
        Condition("plan/a", Test.VERSION, 7),
        Condition("plan/b", Test.EXISTS, 1),
        unchanged("plan0", 4),
        unchanged("plan/", 4),
        Condition("plan", Test.UNCHANGED_SINCE, 2),
        Condition("plan/b", Test.UNCHANGED_SINCE, 2),
        Condition("never", Test.VALUE, b"", Operator.NOT_EQUAL),
        Condition("plan/a", Test.VALUE, b"w"),
    ]
    outcome = await plans.apply(Put("x", b""), conditions=conditions)
    a, plan = await plans.entry("plan/a"), await plans.entry("plan")
    expected: Sequence[tuple[int, Record | None, int]] = [
        (1, a, 0),
        (2, None, 0),  # a deleted key is absent
        (4, None, 5),
        (5, plan, 3),
        (6, None, 5),
        (7, None, 0),
        (8, a, 0),
    ]
    assert (outcome.committed, outcome.revision, list(outcome.results)) == (False, 5, [])
    assert plain(outcome.failed) == plain([FailedCondition(*failed) for failed in expected])


async def test_otherwise_is_applied_where_a_condition_fails(plans: Space) -> None:
    unmet, met = Condition("plan/a", Test.VERSION, 7), Condition("plan/a", Test.VERSION, 1)
    otherwise: list[Operation] = [Put("loser", b"1"), Get("loser"), Get("winner")]
    outcome = await plans.apply(Put("winner", b"1"), conditions=[met, unmet], otherwise=otherwise)
    assert (outcome.committed, outcome.revision) == (False, 6)
    assert [failed.position for failed in outcome.failed] == [1]
    assert len(outcome.results) == 3
    assert outcome.results[1][0] == await plans.entry("loser")
    assert outcome.results[2][0] is None
    outcome = await plans.apply(Put("winner", b"1"), conditions=[met], otherwise=[Delete("loser")])
    assert (outcome.committed, outcome.revision, list(outcome.failed)) == (True, 7, [])
    assert await plans.keys("loser") == ["loser"]
