"""Leases without async: the same, but that nothing can interrupt a block."""

import inspect
import threading
from collections.abc import Iterator
from typing import Any, assert_type

import pytest

import comity
from comity import LeaseGuard, LeaseLost, LeaseNotFound, Put, sync
from tests.client.test_contexts import run_script
from tests.servers import Server
from tests.waiting import wait_until

KEPT = 3.0  # a ttl that passes while a test waits, but not while it is held up


@pytest.fixture
def state(server: Server, namespace: str) -> Iterator[sync.Client]:
    with comity.sync.connect(server.address, namespace=namespace, author="ann") as client:
        yield client


def is_alive(lease: sync.Lease) -> bool:
    return lease.alive


def gone(state: sync.Client, lease: sync.Lease | int) -> bool:
    try:
        state.get_lease(lease)
    except LeaseNotFound:
        return True
    return False


def test_all_that_a_lease_has() -> None:
    of_instances = {"namespace", "id", "ttl"}
    names = {name for name in dir(comity.Lease) if not name.startswith("_")} | of_instances
    assert {name for name in dir(sync.Lease) if not name.startswith("_")} == names
    for name in names - of_instances:
        other: Any = getattr(sync.Lease, name)
        assert other.__doc__
        assert not inspect.iscoroutinefunction(other)


def test_types(state: sync.Client) -> None:
    lease = state.grant_lease(10)
    assert_type(lease, sync.Lease)
    assert_type(state.keep_alive(lease), sync.Lease)
    assert_type(state.renew_lease(lease), float)
    assert_type(state.get_lease(lease), comity.LeaseInfo)
    assert_type(state.list_leases(), Iterator[comity.LeaseInfo])
    assert_type(state.revoke_lease(lease), int)


def test_a_block_holds_a_lease(state: sync.Client) -> None:
    with state.lease(KEPT) as lease:
        state.put("a", 1, lease=lease)
        state.transact(lambda tx: tx.put("b", 1, lease=lease), guard=lease)
        state.cell("c", int).set(1, lease=lease, guard=lease)
        first = state.get_lease(lease).expire_time
        wait_until(lambda: (state.get_lease(lease).expire_time - first).total_seconds() > KEPT)
        assert is_alive(lease)
        assert 0 < lease.remaining <= KEPT
        assert (lease.namespace, lease.ttl) == (state.namespace, KEPT)
        assert lease.guard == LeaseGuard(lease.id, lease.fence)
        assert state.get_lease(lease).key_count == 3
    assert not is_alive(lease)
    assert state.list().all() == []
    assert gone(state, lease)
    with pytest.raises(LeaseLost):
        state.put("a", 1, guard=lease)


def test_a_lease_that_is_lost(state: sync.Client) -> None:
    told: list[tuple[sync.Lease, str]] = []
    lease = state.grant_lease(3600)
    lease.on_lost(lambda lost: told.append((lost, threading.current_thread().name)))
    with pytest.raises(TimeoutError):
        lease.lost(timeout=0.01)
    state.revoke_lease(lease.id)
    lease.lost()
    wait_until(lambda: bool(told))
    assert told == [(lease, "comity")]
    with pytest.raises(LeaseLost, match="the server says that it has ended"):
        lease.check()
    with pytest.raises(TypeError, match="callback must be"):
        lease.on_lost(3)  # type: ignore[arg-type]


def test_a_block_whose_lease_is_lost_is_told_at_its_end(state: sync.Client) -> None:
    def block(error: Exception | None) -> None:
        with state.lease(3600) as lease:
            state.revoke_lease(lease.id)
            lease.lost()
            if error is not None:
                raise error

    with pytest.raises(LeaseLost):
        block(None)
    with pytest.raises(ZeroDivisionError):
        block(ZeroDivisionError())


def test_a_block_that_raises_revokes(state: sync.Client) -> None:
    def block() -> None:
        with state.lease(3600) as lease:
            state.put("a", 1, lease=lease)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        block()
    assert state.get("a") is None


def test_a_lease_of_a_put(state: sync.Client) -> None:
    put = state.put("a", 1, ttl=KEPT)
    lease = state.keep_alive(put.lease_id)
    assert (lease.id, lease.ttl) == (put.lease_id, KEPT)
    assert state.renew_lease(lease) <= KEPT
    lease.close()
    wait_until(lambda: gone(state, lease.id))
    state.transact(then=[Put("b", 1, ttl=10)])
    (found,) = state.list_leases()
    assert found.ttl == 10


def test_a_client_that_is_closed_revokes_nothing(server: Server, namespace: str, state: sync.Client) -> None:
    client = comity.sync.connect(server.address, namespace=namespace)
    lease = client.grant_lease(KEPT)
    client.close()
    assert not gone(state, lease.id)
    lease.lost()
    wait_until(lambda: gone(state, lease.id))


def test_programs_end_without_a_word(server: Server, namespace: str) -> None:
    script = """
        import os, sys
        import comity.sync

        def renewed(client, lease):
            first = client.get_lease(lease).expire_time
            while client.get_lease(lease).expire_time == first:
                pass

        def connect():
            return comity.sync.connect(sys.argv[1], namespace=sys.argv[2])

        with connect() as client, client.lease(30.0) as lease:
            renewed(client, lease)
            client.close()
        client = connect()
        lease = client.grant_lease(3.0)
        renewed(client, lease)
        child = os.fork()  # which leaves it alone
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        for _ in range(3):
            renewed(client, lease)
        print(lease.alive)
    """
    assert run_script(script, server.address, namespace) == "True\n"
