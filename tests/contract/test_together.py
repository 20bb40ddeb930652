"""Everything at once: writes, checkpoints, restores, forks, merges, deletes and compactions of the same namespaces."""

from comity_server.errors import NamespaceNotFound
from tests.contract.crowd import all_of, clear, crowd
from tests.contract.space import Space


async def test_namespaces_are_whole_after_everything_was_done_to_them_at_once(space: Space) -> None:
    family = [space.sibling(name) for name in "abcdef"]
    await family[0].put("k0000")
    for turn in range(3):
        await crowd(family, tasks=8, steps=30, seed=turn)
        found = 0
        for one in family:
            try:
                await all_of(one)
                found += 1
            except NamespaceNotFound:
                continue
        assert found > 1
    for info in await clear(family):
        assert info.history_size_bytes == 0, "nothing is kept for nobody"
