"""What the methods of a client say that they raise."""

from collections.abc import AsyncIterator

import pytest

import comity
from comity import Client, Key, Prefix, Put, RequestId
from tests.servers import Server


@pytest.fixture
async def state(server: Server, namespace: str) -> AsyncIterator[Client]:
    """At revision 5, compacted up to 3."""
    async with comity.connect(server.address, namespace=namespace) as client:
        for number in range(5):
            await client.put("k", number)
        await client.compact(3)
        yield client


async def test_a_request_id_of_another_write_and_one_that_is_forgotten(state: Client) -> None:
    await state.put("a", 1, request_id=RequestId("job", 4))
    await state.transact(then=[Put("b", 1)], request_id=RequestId("job", 5, awaited=5))
    with pytest.raises(comity.InvalidArgument) as reused:
        await state.delete("a", request_id=RequestId("job", 5))
    assert reused.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(comity.FailedPrecondition) as forgotten:
        await state.put("a", 1, request_id=RequestId("job", 4))
    assert forgotten.value.reason == "REQUEST_ID_FORGOTTEN"


@pytest.mark.parametrize("target", [Key("k"), Prefix("k")])
async def test_unchanged_since_a_revision_that_cannot_be_read(state: Client, target: Key | Prefix) -> None:
    with pytest.raises(comity.Compacted):
        await state.transact(conditions=[target.unchanged_since(2)])
    with pytest.raises(comity.OutOfRange) as caught:
        await state.transact(conditions=[target.unchanged_since(6)])
    assert caught.value.reason == "REVISION_IN_FUTURE"
    with pytest.raises(comity.Compacted):
        await state.delete(prefix="k", if_revision=2)
    with pytest.raises(comity.OutOfRange):
        await state.delete(prefix="k", if_revision=6)


async def test_a_history_that_cannot_be_read(state: Client) -> None:
    for history in (state.history(from_revision=3), state.history(to_revision=3)):
        with pytest.raises(comity.Compacted):
            await history.all()
    with pytest.raises(comity.OutOfRange) as caught:
        await state.history(to_revision=6).all()
    assert caught.value.reason == "REVISION_IN_FUTURE"
    assert [commit.revision for commit in await state.history(newest_first=False).all()] == [4, 5]
    assert [commit.revision for commit in await state.history().all()] == [5, 4]


async def test_to_keep_all_revisions_forgets_none(state: Client) -> None:
    assert await state.compact(0) == 3
    assert await state.get("k", revision=3) is not None
    assert await state.compact() == 5
    with pytest.raises(comity.NotFound):
        await state.with_options(namespace=f"{state.namespace}-none").compact(0)
