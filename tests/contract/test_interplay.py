"""What goes on at the same time, or comes before it was expected, and must not be lost or made up for it."""

import asyncio

import pytest

from comity_server.errors import Compacted, QuotaExceeded, StateError
from comity_server.limits import Limits
from comity_server.model import Fork, MakeCheckpoint, NamespaceInfo, Put, RequestId, RestoreResult, Transaction
from tests.contract.conftest import OpenSpace
from tests.contract.space import Space, fresh_name, plain


async def test_restore_that_waits_for_a_compaction_reads_no_less_than_it_should(space: Space) -> None:
    """It answers that the revision is compacted, or puts everything back: never a part."""
    for round_ in range(20):
        await space.apply(*(Put(f"k{number:04}", b"%d" % round_) for number in range(500)))
    wanted = await space.revision()
    await space.delete_prefix("k")
    await space.put("other")
    compacting = asyncio.create_task(space.store.compact(space.name, wanted - 1))
    await asyncio.sleep(0)
    restoring = asyncio.create_task(space.restore(wanted))
    await asyncio.sleep(0)
    further = asyncio.create_task(space.store.compact(space.name))
    await asyncio.gather(compacting, further)
    try:
        revision, result = await restoring
    except Compacted:
        assert await space.keys() == ["other"]
    else:
        assert result == RestoreResult(500, 1)
        assert len(await space.keys()) == 500
        assert revision == wanted + 3


async def test_restore_of_a_prefix_in_a_fork_goes_on_while_the_parent_is_written(space: Space) -> None:
    for start in range(0, 4000, 1000):
        await space.apply(*(Put(f"p/{number:05}", b"v") for number in range(start, start + 1000)))
    fork = await space.fork("fork")
    await fork.put("p/00000", b"changed")
    for start in range(0, 8000, 1000):
        await fork.apply(*(Put(f"q/{number:05}", b"v") for number in range(start, start + 1000)))
    begun = (await fork.info()).floor
    stop = False

    async def write() -> None:
        number = 0
        while not stop:
            await space.apply(*(Put(f"p/{number:05}.{place}", b"new") for place in range(50)))
            number += 1
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    for _ in range(5):
        _, result = await fork.restore(begun, prefix="p/")
        assert result == RestoreResult(1, 0)
        await fork.put("p/00000", b"changed")
    stop = True
    await writing
    assert len(await fork.keys("p/")) == 4000


async def test_repeat_of_a_fork_answers_as_the_first_did_whatever_became_of_it(space: Space) -> None:
    await space.put("k", b"v")
    fork = space.sibling("fork")
    action = Fork(parent=space.name, request_id=RequestId("c", 1))
    first = await fork.commit(action)
    (begun,) = first.results
    assert isinstance(begun, NamespaceInfo)
    assert plain(begun) == plain(await fork.info())
    await fork.put("more")
    assert plain(await fork.commit(action)) == plain(first)
    await fork.store.delete_namespace(fork.name)
    assert plain(await fork.commit(action)) == plain(first)
    assert not await fork.keys()


async def test_namespaces_that_begin_at_once_are_counted(open_space: OpenSpace) -> None:
    space = await open_space(Limits(namespaces=3))
    first = [space.store.commit(fresh_name(), [Transaction(then=[Put("k", b"")])]) for _ in range(20)]
    answers = [answer for (answer,) in await asyncio.gather(*first)]
    refused = [answer for answer in answers if isinstance(answer, StateError)]
    assert all(isinstance(answer, QuotaExceeded) for answer in refused)
    assert len(answers) - len(refused) == 3


async def test_deleted_parent_keeps_no_more_than_its_forks_show(space: Space) -> None:
    for round_ in range(50):
        await space.put("k", b"%d" % round_ * 1000)
    await space.commit(Transaction(then=[Put("last", b"v")]))
    await space.commit(MakeCheckpoint(name="held", revision=10))
    fork = await space.fork("fork", 25)
    await space.store.delete_namespace(space.name)
    assert (await fork.entry("k"))[1] == b"24" * 1000
    again = await fork.fork("again")
    assert (await again.entry("k"))[1] == b"24" * 1000


@pytest.mark.parametrize("back", [0, 1, 500, 999])
async def test_a_checkpoint_counts_what_there_was(space: Space, back: int) -> None:
    for number in range(1000):
        await space.put(f"k{number % 700}", b"%d" % number)
        if number % 10 == 9:
            await space.delete(f"k{number % 700}")
    revision = await space.revision() - back
    made = await space.checkpoint("c", revision)
    entries = await space.entries(revision=revision)
    assert made.key_count == len(entries)
    assert made.size_bytes == sum(len(entry[0]) + len(entry[1]) for entry in entries)
