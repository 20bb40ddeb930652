"""What the server says of a Redis that may lose what it acknowledged, and what it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity_server.errors import StoreUnavailable
from comity_server.stores.redis import preflight
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.preflight import check_kind
from comity_server.stores.redis.url import parse
from tests import servers
from tests.redis_servers import RedisCluster, RedisServer, Replicated

WARNING = "Redis may lose what was acknowledged"


@pytest.fixture(scope="module")
def plain() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def warnings(*arguments: str, event: str = WARNING) -> list[str]:
    """The reasons that a server gives in its log for something, having served."""
    with servers.start(*arguments, "--log-format", "json") as server:
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.log().splitlines()]
    return [line["why"] for line in lines if line["event"] == event]


@pytest.mark.parametrize(
    ("setting", "value", "good", "said"),
    [
        ("appendonly", "no", "yes", "appendonly is no"),
        ("appendfsync", "everysec", "always", "appendfsync is everysec"),
        ("appendfsync", "no", "always", "appendfsync is no"),
        ("no-appendfsync-on-rewrite", "yes", "no", "no-appendfsync-on-rewrite is yes"),
        ("maxmemory-policy", "allkeys-lru", "noeviction", "maxmemory-policy is allkeys-lru"),
        ("maxmemory-policy", "volatile-ttl", "noeviction", "maxmemory-policy is volatile-ttl"),
    ],
)
def test_a_danger_is_warned_of_once_and_refused_where_that_is_wanted(
    plain: RedisServer, setting: str, value: str, good: str, said: str
) -> None:
    with plain.client() as client:
        client.config_set(setting, value)
        try:
            (why,) = warnings("--store", plain.url)
            assert why.startswith(said)
            ended = servers.run("--store", plain.url, "--require-durable")
        finally:
            client.config_set(setting, good)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_durable_redis_is_taken_without_a_word(plain: RedisServer) -> None:
    assert warnings("--store", plain.url, "--require-durable") == []


def test_what_cannot_be_known(tmp_path: Path) -> None:
    file = tmp_path / "users.acl"
    file.write_text("user default on nopass ~* &* +@all\nuser app on >p ~* &* +@all -config -info\n")
    with RedisServer("--aclfile", str(file)) as server:
        url = f"redis://app:p@{server.address}"
        (why,) = warnings("--store", url)
        assert "CONFIG GET" in why
        ended = servers.run("--store", url, "--require-durable")
        assert (ended.returncode, "CONFIG GET" in ended.stderr) == (1, True)


async def test_a_redis_that_does_not_tell(plain: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "SETTINGS", ("appendonly", "a-setting-that-it-does-not-have"))
    client = Client(parse(plain.url))
    try:
        with pytest.raises(StoreUnavailable, match="does not tell"):
            await preflight.check(client, require_durable=True)
    finally:
        await client.close()


@pytest.mark.parametrize("form", ["replicated", "redis_cluster"])
def test_a_failover_loses_what_replicas_do_not_have(request: pytest.FixtureRequest, form: str) -> None:
    url = request.getfixturevalue(form).url
    (why,) = warnings("--store", url)
    assert "redis_wait_replicas" in why
    assert warnings("--store", url, "--require-durable", "--redis-wait-replicas", "1") == []


def test_every_master_of_a_cluster_is_asked(redis_cluster: RedisCluster) -> None:
    with redis_cluster.masters()[-1].client() as client:
        client.config_set("appendfsync", "everysec")
        try:
            found = warnings("--store", redis_cluster.url, "--redis-wait-replicas", "1")
        finally:
            client.config_set("appendfsync", "always")
    assert [why.split(",")[0] for why in found] == ["appendfsync is everysec"]


def test_the_primary_is_asked_by_way_of_sentinels(replicated: Replicated) -> None:
    with replicated.primary().client() as client:
        client.config_set("appendfsync", "no")
        try:
            ended = servers.run("--store", replicated.url, "--require-durable", "--redis-wait-replicas", "1")
        finally:
            client.config_set("appendfsync", "always")
    assert (ended.returncode, "appendfsync is no" in ended.stderr) == (1, True)


def test_what_a_failover_has_made_a_replica_is_served_for_what_can_be_read(replicated: Replicated) -> None:
    replica = next(one for one in replicated.servers if one is not replicated.primary())
    (why,) = warnings("--store", replica.url, "--redis-wait-replicas", "1", event="Redis takes no writes")
    assert "read only replica" in why


def test_fewer_replicas_than_are_waited_for(plain: RedisServer, redis_cluster: RedisCluster) -> None:
    for url, wanted in ((plain.url, 1), (redis_cluster.url, 2)):
        more = ("--store", url, "--redis-wait-replicas", str(wanted))
        (why,) = warnings(*more, event="Redis takes no writes")
        assert why == f"only {wanted - 1} of {wanted} replicas are connected to Redis"
        ended = servers.run(*more, "--require-durable")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert f"{why}, and require_durable is set" in ended.stderr


def test_a_redis_that_is_full_is_served_for_what_can_be_read() -> None:
    with RedisServer() as server:
        assert warnings("--store", server.url, event="Redis takes no writes") == []
        with server.client() as client:
            client.config_set("maxmemory", 1)
        (why,) = warnings("--store", server.url, event="Redis takes no writes")
        assert "maxmemory" in why


@pytest.mark.parametrize(
    ("form", "place", "more", "said"),
    [
        ("redis+sentinel", "/main", [], "this is no Sentinel"),
        ("redis", "/3", [], "refuses the server's user the command SELECT"),
        ("redis", "/99", [], "Redis refused (DB index is out of range)"),
        ("redis", "?prefix=others", [], "refuses the server's user its keys"),
        ("redis", "", ["--redis-wait-replicas", "1"], "refuses the server's user the command WAIT"),
        (
            "redis",
            "",
            ["--redis-wait-replicas", "1", "--require-durable"],
            "refuses the server's user the command WAIT",
        ),
    ],
)
def test_what_keeps_a_server_from_starting_is_all_that_is_said(
    form: str, place: str, more: list[str], said: str
) -> None:
    """Not before it what may be lost, which is then not so."""
    with RedisServer("--appendonly", "no") as server:
        with server.client() as client:
            allowed = "-wait" if "99" in place else "-wait -select"
            words = f"on >p ~comity:* +@all {allowed}"
            client.execute_command("ACL", "SETUSER", "app", *words.split())
        ended = servers.run("--store", f"{form}://app:p@{server.address}{place}", *more, "--log-format", "json")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert said in ended.stderr.splitlines()[-1]
    assert "the log of the server" not in ended.stderr
    assert WARNING not in ended.stderr
    assert "takes no writes" not in ended.stderr


@pytest.mark.parametrize("version", ["2.8.24", "6.0.16", "6.1.240"])
def test_an_old_redis_is_refused(version: str) -> None:
    with pytest.raises(StoreUnavailable, match="too old"):
        check_kind("single", {"redis_version": version})


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "255.255.255", ""])
def test_others_are_not(version: str) -> None:
    check_kind("single", {"redis_version": version})


@pytest.mark.parametrize("url", ["memory:", "sqlite:store.db"])
def test_a_store_without_replicas(url: str) -> None:
    ended = servers.run("--store", url, "--redis-wait-replicas", "1")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "redis_wait_replicas" in ended.stderr


def test_memory_is_nothing_durable() -> None:
    ended = servers.run("--store", "memory:", "--require-durable")
    assert (ended.returncode, "require_durable" in ended.stderr) == (2, True)
