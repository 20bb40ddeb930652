"""What tests of leases do with them."""

import pytest

from comity_server.errors import (
    StateError,
)
from comity_server.model import (
    Commit,
    Lease,
    Write,
)
from tests.contract.space import SECOND, Space

SHORT = SECOND // 20


def stand_still(space: Space, monkeypatch: pytest.MonkeyPatch) -> int:
    """Have the clock of commits stand still, so that ids of leases can be told beforehand. Returns the time: the first
    commit has it, that of each group behind is 1 later, and so is what comes in its group after a lease is granted."""
    time = space.store.time()
    monkeypatch.setattr(space.store, "time", lambda: time)
    return time


async def newest(space: Space) -> Commit:
    return (await space.log())[-1]


async def lives(space: Space, lease: Lease | int) -> bool:
    return not await space.store.ended(space.name, [lease if isinstance(lease, int) else lease.id])


async def refused(space: Space, error: type[StateError], write: Write) -> StateError:
    """That a write is refused and leaves nothing."""

    async def all_of_it() -> object:
        exists = await space.store.namespaces(space.name, limit=1)
        return await space.revision(), await space.entries(), await space.leases() if exists else {}

    before = await all_of_it()
    with pytest.raises(error) as raised:
        await space.commit(write)
    assert await all_of_it() == before
    return raised.value
