"""When leases run out, in memory: the next one first, and nothing is kept for those that have ended."""

from comity_server.model import Lease
from comity_server.stores.memory.leases import Deadlines, Leases


def granted(leases: Leases, deadlines: Deadlines, id: int, deadline: int) -> None:
    leases.grant(Lease(id, 1, "", 0), deadline)
    deadlines.add("n", leases, id, deadline)


def due(deadlines: Deadlines, now: int) -> list[int]:
    return [id for _, _, id in deadlines.due(now, now + 10)]


def test_what_has_run_out_is_told_in_its_order_and_again_until_it_has_ended() -> None:
    leases, deadlines = Leases(), Deadlines()
    for id, deadline in ((1, 30), (2, 10), (3, 20)):
        granted(leases, deadlines, id, deadline)
    assert due(deadlines, 9) == []
    assert due(deadlines, 20) == [2, 3]
    assert due(deadlines, 29) == []
    leases.end(2)
    assert sorted(due(deadlines, 30)) == [1, 3]


def test_a_renewal_puts_it_off() -> None:
    leases, deadlines = Leases(), Deadlines()
    granted(leases, deadlines, 1, 10)
    for held in leases:
        held.deadline = 50
    assert due(deadlines, 49) == []
    assert due(deadlines, 50) == [1]


def test_leases_that_end_long_before_their_time_are_not_kept() -> None:
    leases, deadlines = Leases(), Deadlines()
    granted(leases, deadlines, 1, 10**9)
    for id in range(2, 20_000):
        granted(leases, deadlines, id, 10**12 + id)
        leases.end(id)
    assert len(deadlines) < 2_000
    assert due(deadlines, 10**9) == [1]
    leases.clear()
    assert not deadlines
