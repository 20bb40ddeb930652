"""Request ids of what is done with leases."""

import pytest

from comity_server.errors import (
    LeaseLost,
    RequestIdReused,
)
from comity_server.model import (
    DeleteResult,
    Grant,
    Guard,
    Increment,
    MakeCheckpoint,
    Put,
    RequestId,
    Revoke,
    Transaction,
)
from tests.contract.leases import SHORT, refused
from tests.contract.space import HOUR, Space, own_lease, plain


async def test_a_repeated_grant_is_the_same_lease(space: Space) -> None:
    grant = Grant(ttl=HOUR, author="ann", request_id=RequestId("c", 1))
    first = await space.commit(grant)
    await space.put("a")
    assert plain(await space.commit(grant)) == plain(first)
    assert plain((await space.group(grant, grant))[1]) == plain(first)
    (lease,) = await space.leases()
    await space.revoke(lease)
    assert plain(await space.commit(grant)) == plain(first)
    assert await space.leases() == {}
    with pytest.raises(RequestIdReused):
        await space.commit(Grant(ttl=HOUR + 1, request_id=RequestId("c", 1)))


async def test_a_repeated_revoke_answers_as_the_first(space: Space) -> None:
    lease, empty = await space.grant(), await space.grant()
    await space.put_with(lease, "a", "b")
    for sequence, id, keys in ((1, lease.id, 2), (2, empty.id, 0)):
        revoke = Revoke(lease_id=id, request_id=RequestId("c", sequence))
        first = await space.commit(revoke)
        assert plain(first.results) == plain([DeleteResult(keys)])
        await space.put("later")
        assert plain(await space.commit(revoke)) == plain(first)


async def test_a_guarded_write_that_is_repeated_after_its_lease_ended_answers_as_the_first(space: Space) -> None:
    lease = await space.grant()
    write = Transaction(then=[Increment("n", 1)], request_id=RequestId("c", 1), guard=Guard(lease.id))
    mark = MakeCheckpoint(name="m", request_id=RequestId("c", 2), guard=Guard(lease.id))
    first = [await space.commit(one) for one in (write, mark)]
    await space.revoke(lease)
    assert [plain(await space.commit(one)) for one in (write, mark)] == [plain(one) for one in first]
    late = write._replace(request_id=RequestId("c", 3))
    await refused(space, LeaseLost, late)
    await refused(space, LeaseLost, late)
    assert await space.contents() == {"n": b"1"}


async def test_a_repeated_put_with_a_ttl_does_not_bring_the_key_back(space: Space) -> None:
    write = Transaction(then=[Put("a", b"", ttl=SHORT)], request_id=RequestId("c", 1))
    first = await space.commit(write)
    await space.expired(own_lease(first.results[0]))
    assert plain(await space.commit(write)) == plain(first)
    assert await space.keys() == []
