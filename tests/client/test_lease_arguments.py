"""What a caller may say of leases, and what not."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import comity
from comity import Client, Lease, LeaseGuard, LeaseLost, LeaseNotFound, Put

TYPES: list[tuple[str, Callable[[Any], Awaitable[object]]]] = [
    ("ttl must be a number of seconds above 0, not str", lambda state: state.grant_lease("10")),
    ("ttl must be a number of seconds above 0, not bool", lambda state: state.grant_lease(True)),
    ("ttl must be a number of seconds above 0, not NoneType", lambda state: state.grant_lease(None)),
    ("ttl must be a number of seconds above 0, not str", lambda state: state.put("a", 1, ttl="1")),
    ("ttl must be a number .*, not list", lambda state: state.transact(lambda tx: tx.put("a", 1, ttl=[1]))),
    ("give either a lease or a ttl", lambda state: state.put("a", 1, ttl=1, lease=1)),
    ("give either a lease or a ttl", lambda state: state.transact(lambda tx: tx.put("a", 1, ttl=1, lease=1))),
    ("a lease is named by .*, not by str", lambda state: state.put("a", 1, lease="1")),
    ("a lease is named by .*, not by float", lambda state: state.get_lease(1.0)),
    ("a lease is named by .*, not by bool", lambda state: state.revoke_lease(True)),
    ("a lease is named by .*, not by NoneType", lambda state: state.keep_alive(None)),
    ("ttl must be a number of seconds above 0, not str", lambda state: state.keep_alive(1, ttl="10")),
    ("a lease is named by .*, not by str", lambda state: state.renew_lease("1")),
    (r"then\[0\]: a lease is named by .*", lambda state: state.transact(then=[Put("a", 1, lease="x")])),  # type: ignore[arg-type]
    ("guard must be a comity.Lease or a comity.LeaseGuard, not int", lambda state: state.put("a", 1, guard=3)),
    ("guard must be a comity.Lease or a comity.LeaseGuard, not tuple", lambda state: state.delete("a", guard=(1, 1))),
    ("guard must be .*, not str", lambda state: state.transact(lambda tx: tx.put("a", 1), guard="x")),
    ("a fence is a whole number", lambda state: state.put("a", 1, guard=LeaseGuard(1, "1"))),  # type: ignore[arg-type]
    ("page_size must be a whole number", lambda state: anext(state.list_leases(page_size="1"))),
]


VALUES: list[tuple[str, Callable[[Any], Awaitable[object]]]] = [
    *(("a ttl is a number of seconds above 0", lambda state, ttl=ttl: state.grant_lease(ttl)) for ttl in (0, -1)),
    *(
        ("a ttl is a number of seconds above 0", lambda state, ttl=ttl: state.put("a", 1, ttl=ttl))
        for ttl in (math.nan, -math.inf)
    ),
    *(
        (f"^a ttl is at most 315576000000 s, not {shown}$", lambda state, ttl=ttl: state.put("a", 1, ttl=ttl))
        for ttl, shown in (
            (math.inf, "inf"),
            (1e12, "1000000000000.0"),
            (1e300, r"1e\+300"),
            (10**30, r"1e\+30"),
            (10**5000, "a number of more than 308 digits"),
        )
    ),
    ("^a ttl .* above 0, not a negative number of more than 308 digits$", lambda state: state.grant_lease(-(10**400))),
    ("a ttl is a number of seconds above 0", lambda state: state.keep_alive(1, ttl=0)),
    ("the id of a lease is a whole number from 1", lambda state: state.put("a", 1, lease=0)),
    ("the id of a lease is a whole number from 1", lambda state: state.get_lease(-1)),
    ("the id of a lease is a whole number from 1", lambda state: state.renew_lease(2**63)),
    ("^the id of a lease .*, not a number of more than 308 digits$", lambda state: state.get_lease(10**400)),
    ("the id of a lease is a whole number from 1", lambda state: state.put("a", 1, guard=LeaseGuard(0))),
    ("a fence is a whole number from 0", lambda state: state.put("a", 1, guard=LeaseGuard(1, -1))),
]


@pytest.mark.parametrize(("text", "call"), TYPES)
async def test_a_wrong_type(state: Client, text: str, call: Callable[[Any], Awaitable[object]]) -> None:
    with pytest.raises(TypeError, match=text):
        await call(state)


@pytest.mark.parametrize(("text", "call"), VALUES)
async def test_a_wrong_value(state: Client, text: str, call: Callable[[Any], Awaitable[object]]) -> None:
    with pytest.raises(ValueError, match=text):
        await call(state)


async def test_a_ttl_that_no_server_grants(state: Client) -> None:
    for ttl in (0.001, 1e-9, 86_401):
        with pytest.raises(comity.InvalidArgument, match="ttl"):
            await state.grant_lease(ttl)
        with pytest.raises(comity.InvalidArgument, match=r"^ttl: must be from 1 to 86400 s$"):
            await state.put("a", 1, ttl=ttl)
        with pytest.raises(comity.InvalidArgument, match=r"^ttl of 'a': must be from 1 to 86400 s$"):
            await state.transact(lambda tx, ttl=ttl: tx.put("a", 1, ttl=ttl))  # type: ignore[misc]


async def test_no_lease(state: Client) -> None:
    await state.put("a", 1)
    for call in (state.get_lease, state.revoke_lease, state.keep_alive, state.renew_lease):
        with pytest.raises(LeaseNotFound) as error:
            await call(10**15)
        assert error.value.lease_id == 10**15
        assert isinstance(error.value, comity.NotFound)
    with pytest.raises(LeaseNotFound):
        await state.put("a", 1, lease=10**15)
    with pytest.raises(LeaseLost) as lost:
        await state.put("a", 1, guard=LeaseGuard(10**15))
    assert isinstance(lost.value, comity.FailedPrecondition)


async def test_no_namespace(state: Client) -> None:
    with pytest.raises(comity.NotFound, match="namespace"):
        await anext(state.list_leases())


async def test_a_lease_of_another_namespace(state: Client) -> None:
    other = state.with_options(namespace=f"{state.namespace[:50]}-o")
    lease = await other.grant_lease(10)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: state.put("a", 1, lease=lease),
        lambda: state.put("a", 1, guard=lease),
        lambda: state.transact(lambda tx: tx.put("a", 1, lease=lease)),
        lambda: state.transact(then=[Put("a", 1, lease=lease)]),
        lambda: state.revoke_lease(lease),
        lambda: state.keep_alive(lease),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="the lease is of namespace"):
            await call()
    assert lease.alive
    await other.put("a", 1, guard=lease)


async def test_what_is_called_is_a_plain_function(state: Client) -> None:
    lease = await state.grant_lease(10)

    async def later(_: Lease) -> None: ...

    with pytest.raises(TypeError, match="not an async one"):
        lease.on_lost(later)
    with pytest.raises(TypeError, match="callback must be a function, not int"):
        lease.on_lost(3)  # type: ignore[arg-type]
