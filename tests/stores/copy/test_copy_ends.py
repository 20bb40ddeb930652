"""What is copied, from where and to where: and what is refused, or left as it is."""

import sqlite3
import uuid
from pathlib import Path

import pytest

from comity_server.errors import StoreUnavailable
from comity_server.stores.copy.copying import Choice, NoNamespace
from comity_server.stores.copy.run import SameStore
from comity_server.stores.transfer import NoStore
from comity_server.stores.url import sqlite_path
from tests.redis_servers import RedisCluster, RedisServer, Replicated
from tests.stores.copy.copies import Urls, all_placeless, copied, family, made_equal, opened
from tests.stores.everything import everything, live


async def test_namespaces_are_chosen(pair: tuple[str, str]) -> None:
    source, target = pair
    async with opened(source) as one:
        await family(one.space("f"))
        for name in ("team-a", "team-b", "other"):
            await one.space(name).put("a")
    assert set(await copied(source, target, Choice(["f.inner"]))) == {"f", "f.inner"}  # and what is between them
    assert set(await copied(source, target, Choice(["f.two"]))) == {"f", "f.two"}
    assert set(await copied(source, target, Choice(["other"], "team-"))) == {"other", "team-a", "team-b"}
    assert set(await copied(source, target, Choice(prefix="none"))) == set()
    with pytest.raises(NoNamespace, match="none"):
        await copied(source, target, Choice(["other", "none"]))
    async with opened(target) as other:
        names = [info.name for info in await other.store.namespaces("", limit=100)]
        assert names == ["f", "f.inner", "f.two", "other", "team-a", "team-b"]
    await made_equal(source, target, overwrite=True)


async def test_a_dry_run_does_nothing(pair: tuple[str, str], redis_server: RedisServer) -> None:
    source, target = pair
    async with opened(source) as one:
        for name in ("there", "behind", "other", "gone"):
            await one.space(name).put("a")
        await one.store.delete_namespace("gone")
    before = held(source, redis_server), held(target, redis_server)
    would = await copied(source, target, dry_run=True)
    assert {name: result.ending for name, result in would.items()} == {
        "there": "copied",
        "behind": "copied",
        "other": "copied",
        "gone": "counted",
    }
    assert (held(source, redis_server), held(target, redis_server)) == before
    await copied(source, target, Choice(["there", "behind"]))
    async with opened(source) as one, opened(target) as other:
        await one.space("behind").put("a")
        await other.space("other").put("a")
    before = held(source, redis_server), held(target, redis_server)
    for overwrite, ending in ((False, "conflict"), (True, "replaced")):
        would = await copied(source, target, dry_run=True, overwrite=overwrite)
        assert {name: result.ending for name, result in would.items()} == {
            "there": "there",
            "behind": "continued",
            "other": ending,
            "gone": "counted",
        }
    assert (held(source, redis_server), held(target, redis_server)) == before


async def test_the_source_is_left_as_it_is(pair: tuple[str, str], redis_server: RedisServer) -> None:
    source, target = pair
    await copied(source, target) if source.startswith("redis") else None  # one that nobody has used
    assert held(source, redis_server) is None
    async with opened(source) as one:
        await family(one.space("f"))
    before = held(source, redis_server)
    await made_equal(source, target)
    assert held(source, redis_server) == before


def held(url: str, redis_server: RedisServer) -> object:
    """All that a store is, byte by byte; None: nothing."""
    if url.startswith("sqlite:"):
        path = sqlite_path(url)
        return path.read_bytes() if path.exists() else None
    with redis_server.client() as client:
        keys = sorted(client.scan_iter(f"{url.partition('=')[2]}:*"))
        return [(key, client.dump(key)) for key in keys] or None


async def test_a_store_is_not_copied_to_itself(urls: Urls, tmp_path: Path) -> None:
    redis, file = urls.new("redis"), urls.new("sqlite")
    async with opened(redis) as one, opened(file) as other:
        await one.space("a").put("a")
        await other.space("a").put("a")
    link = tmp_path / "link.db"
    link.symlink_to(sqlite_path(file))
    for source, target in (
        (redis, redis),
        (redis, redis.replace("127.0.0.1", "localhost")),
        (file, file),
        (file, f"sqlite:{link}"),
    ):
        with pytest.raises(SameStore):
            await copied(source, target)
        with pytest.raises(SameStore):
            await copied(source, target, dry_run=True)


async def test_what_is_no_store_cannot_be_copied_from(urls: Urls, tmp_path: Path) -> None:
    target = urls.new("sqlite")
    with pytest.raises(NoStore, match="does not exist"):
        await copied(f"sqlite:{tmp_path / 'none.db'}", target)
    empty, text, other = (tmp_path / name for name in ("empty.db", "text.db", "other.db"))
    empty.touch()
    text.write_text("this is no database, but a text that is longer than a page of one would be" * 100)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for path, reason in ((empty, "empty"), (text, "no database"), (other, "another program")):
        with pytest.raises(StoreUnavailable, match=reason):
            await copied(f"sqlite:{path}", target)
    used = urls.new("sqlite")
    async with opened(used) as one:
        await one.space("a").put("a")
        with pytest.raises(StoreUnavailable, match="a server uses it"):
            await copied(used, target)
        with pytest.raises(StoreUnavailable, match="in use"):
            await copied(urls.new("redis"), used)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await copied("redis://127.0.0.1:1", target)
    assert not sqlite_path(target).exists()


async def test_to_a_cluster_and_back(urls: Urls, redis_cluster: RedisCluster) -> None:
    source, back = urls.new("sqlite"), urls.new("sqlite")
    cluster = f"{redis_cluster.url}?prefix=t-{uuid.uuid4().hex}"
    async with opened(source) as one:
        await live(one)
        await family(one.space("f"))
    assert "copied" in (await made_equal(source, cluster)).values()
    assert "copied" in (await made_equal(cluster, back)).values()
    async with opened(source) as one, opened(back) as other:
        before, after = all_placeless(await everything(one)), all_placeless(await everything(other))
        for what, was in before.items():
            assert after[what] == was, what


async def test_replicas_are_waited_for(urls: Urls, replicated: Replicated) -> None:
    source, target = urls.new("sqlite"), f"{replicated.url}?prefix=t-{uuid.uuid4().hex}"
    async with opened(source) as one:
        await family(one.space("f"))
    with pytest.raises(StoreUnavailable, match="only 2 of 3 replicas"):
        await copied(source, target, wait_replicas=3)
    await made_equal(source, target, wait_replicas=2)
