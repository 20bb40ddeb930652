"""Every form of Redis does: replicated with Sentinels, a Cluster, behind TLS, with users, databases and prefixes."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from comity_server.errors import StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Put, RequestId
from comity_server.stores.protocol import Store
from comity_server.stores.url import open_store
from tests import servers
from tests.authority import Authority
from tests.contract.space import Space, fresh_name
from tests.redis_servers import RedisCluster, RedisServer, Replicated, free_port

PASSWORD = "p@ss:w/o?r#d%&+ é"


@asynccontextmanager
async def opened(url: str, *, wait_replicas: int = 0) -> AsyncIterator[Store]:
    store = open_store(url, Limits(), wait_replicas=wait_replicas)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def works(url: str, *, wait_replicas: int = 0) -> str:
    """Write through one store and read through another one of the same URL. Returns the namespace's name."""
    name = fresh_name()
    async with opened(url, wait_replicas=wait_replicas) as first, opened(url) as second:
        for number in range(3):
            await Space(first, name).put(f"k{number}", b"v" * 2_000_000)  # longer than one entry of the log
        assert await Space(second, name).keys() == ["k0", "k1", "k2"]
        await second.compact(name, 3)
        await Space(second, name).put("k3")
        assert (await first.get(name, "k3")).revision == 4
    return name


def keys(server: RedisServer, database: int = 0) -> set[str]:
    with redis.Redis(port=server.port, db=database) as client:
        return {key.decode() for key in client.scan_iter()}


@pytest.mark.parametrize("wait_replicas", [0, 1, 2])
async def test_sentinel(replicated: Replicated, wait_replicas: int) -> None:
    await works(replicated.url, wait_replicas=wait_replicas)


@pytest.mark.parametrize("wait_replicas", [0, 1])
async def test_cluster(redis_cluster: RedisCluster, wait_replicas: int) -> None:
    """Namespaces that are on all of its nodes."""
    names = [await works(redis_cluster.url, wait_replicas=wait_replicas) for _ in range(8)]
    masters = {redis_cluster.master_of(f"{{{name}}}").port for name in names}
    assert len(masters) > 1


def connections(nodes: Sequence[RedisServer]) -> int:
    """How many were made to some servers so far."""
    return sum(int(str(node.says("stats", "total_connections_received"))) for node in nodes)


@pytest.mark.parametrize("form", ["redis", "redis+cluster"])
async def test_many_namespaces_are_listed_by_few_connections(
    redis_server: RedisServer, redis_cluster: RedisCluster, form: str
) -> None:
    url, nodes = (redis_server.url, [redis_server]) if form == "redis" else (redis_cluster.url, redis_cluster.masters())
    async with opened(f"{url}?prefix={fresh_name()}") as store:
        assert await store.namespaces("", limit=10) == []
        names = sorted(fresh_name() for _ in range(50))
        for name in names:
            await Space(store, name).put("k")
        before = connections(nodes)
        found = await store.namespaces("", limit=100)
        assert [(info.name, info.revision) for info in found] == [(name, 1) for name in names]
        assert connections(nodes) - before <= 2 * len(nodes)  # those of `connections` itself, and one more to each


async def test_too_few_replicas(replicated: Replicated, redis_cluster: RedisCluster) -> None:
    """It is not acknowledged, and no repeat of it is."""
    for url, too_many in ((replicated.url, 3), (redis_cluster.url, 2)):
        async with opened(f"{url}{'&' if '?' in url else '?'}prefix={fresh_name()}", wait_replicas=too_many) as store:
            space = Space(store, fresh_name())
            with pytest.raises(StoreUnavailable, match="replicas have the write"):
                await space.put("k")
            assert not store.writable()


async def test_a_repeat_of_what_too_few_replicas_have_is_not_acknowledged(replicated: Replicated) -> None:
    url = f"{replicated.url}?prefix={fresh_name()}"
    name = fresh_name()
    async with opened(url, wait_replicas=3) as strict, opened(url, wait_replicas=2) as other:
        for store in (strict, strict, other):
            asked = Space(store, name).apply(Put("k", b"v"), request_id=RequestId("c", 1))
            if store is strict:
                with pytest.raises(StoreUnavailable):
                    await asked
            else:
                assert (await asked).revision == 1
        assert (await other.get(name, "k")).revision == 1


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis with users of its own."""
    file = tmp_path / "users.acl"
    file.write_text(
        "user default on nopass ~* &* +@all\n"
        f"user us:er on #{_digest(PASSWORD)} ~mine:* &* +@all -config\n"
        f"user reader on #{_digest('r')} ~* &* +@read +@connection\n"
    )
    with RedisServer("--aclfile", str(file)) as server:
        yield server


async def test_users_and_passwords(guarded: RedisServer) -> None:
    """Also of one who may touch only what begins with the prefix."""
    url = f"redis://{quote('us:er', safe='')}:{quote(PASSWORD, safe='')}@{guarded.address}"
    await works(f"{url}?prefix=mine")
    assert all(key.startswith("mine:") for key in keys(guarded))
    with pytest.raises(StoreUnavailable, match="user"):
        await works(f"{url}?prefix=others")


@pytest.mark.parametrize("user", ["reader:r", "reader:s3cr3t", "nobody:s3cr3t"])
async def test_a_user_who_may_not(guarded: RedisServer, user: str) -> None:
    with pytest.raises(StoreUnavailable, match="refuses the server's user") as refused:
        await works(f"redis://{user}@{guarded.address}")
    assert "s3cr3t" not in str(refused.value)


def test_the_server_does_not_say_the_password(guarded: RedisServer) -> None:
    user = f"{quote('us:er', safe='')}:{quote(PASSWORD, safe='')}"
    url = f"redis://{user}@{guarded.address}?prefix=mine"
    with servers.start("--store", url, "--log-level", "debug") as server:
        assert server.stop() == 0
        said = "".join(server.output) + server.log()
    assert f"redis://{guarded.address}?prefix=mine" in said
    for secret in (PASSWORD, quote(PASSWORD, safe=""), "p@ss"):
        assert secret not in said


async def test_a_password_of_all(tmp_path: Path) -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.config_set("requirepass", PASSWORD)
        await works(f"redis://:{quote(PASSWORD, safe='')}@{server.address}")
        with pytest.raises(StoreUnavailable):
            await works(server.url)


async def test_prefixes_and_databases_are_apart(redis_server: RedisServer) -> None:
    prefixes = [fresh_name(), fresh_name()]
    urls = [
        *(f"{redis_server.url}?prefix={prefix}" for prefix in prefixes),
        f"{redis_server.url}/7?prefix={prefixes[0]}",
    ]
    for url in urls:
        async with opened(url) as store:
            space = Space(store, "same")
            await space.put("k")
            assert (await store.get("same", "k")).revision == 1
            assert [info.name for info in await store.namespaces("", limit=10)] == ["same"]
    assert all(key.startswith(f"{prefixes[0]}:") for key in keys(redis_server, 7))


async def test_other_programs_keys_are_left_alone(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set("comityx", "1")
        client.set("comity", "2")
        name = await works(redis_server.url)
        async with opened(redis_server.url) as store:
            await store.delete_namespace(name)
        assert (client.get("comityx"), client.get("comity")) == (b"1", b"2")


@pytest.fixture
async def tls(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[tuple[int, dict[str, str]]]:
    """A port where Redis is behind TLS that wants a client's certificate; and the files that let one in."""
    authority = Authority()
    ca, server, client = (
        authority.write(tmp_path),
        authority.server("localhost").write(tmp_path, "server"),
        authority.client("client").write(tmp_path, "client"),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    files = {"ssl_ca_certs": str(ca), "ssl_certfile": str(client.cert), "ssl_keyfile": str(client.key)}
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", redis_server.port)
        for one in (pump(reader, forth), pump(back, writer)):
            task = asyncio.create_task(one)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    front = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    yield front.sockets[0].getsockname()[1], files
    front.close()
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _query(files: dict[str, str], *names: str, **more: str) -> str:
    return "&".join(f"{name}={quote(value)}" for name, value in [*((n, files[n]) for n in names), *more.items()])


async def test_tls(tls: tuple[int, dict[str, str]]) -> None:
    port, files = tls
    await works(f"rediss://localhost:{port}?{_query(files, *files, prefix=fresh_name())}")


async def test_tls_of_a_name_that_is_not_on_the_certificate(tls: tuple[int, dict[str, str]]) -> None:
    port, files = tls
    with pytest.raises(StoreUnavailable, match="certificate"):
        await works(f"rediss://127.0.0.1:{port}?{_query(files, *files)}")
    query = _query(files, *files, ssl_check_hostname="false", prefix=fresh_name())
    await works(f"rediss://127.0.0.1:{port}?{query}")


async def test_tls_that_is_not_to_be_trusted(tls: tuple[int, dict[str, str]]) -> None:
    port, files = tls
    with pytest.raises(StoreUnavailable, match="certificate"):
        await works(f"rediss://localhost:{port}")
    with pytest.raises(StoreUnavailable):
        await works(f"rediss://localhost:{port}?{_query(files, 'ssl_ca_certs')}")  # with no certificate of its own


@pytest.mark.parametrize(
    ("scheme", "path", "said"),
    [
        ("redis+cluster", "", "no Cluster"),
        ("redis+sentinel", "/main", "no Sentinel"),
        ("rediss", "", "cannot be reached"),
    ],
)
async def test_the_wrong_form(redis_server: RedisServer, scheme: str, path: str, said: str) -> None:
    with pytest.raises(StoreUnavailable, match=said):
        await works(f"{scheme}://{redis_server.address}{path}")


async def test_a_node_of_a_cluster_alone(redis_cluster: RedisCluster) -> None:
    with pytest.raises(StoreUnavailable, match="part of a Cluster"):
        await works(redis_cluster.nodes[0].url)


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
def test_nobody_there(scheme: str) -> None:
    port = free_port()
    path = "/main" if "sentinel" in scheme else ""
    ended = servers.run("--store", f"{scheme}://u:s3cr3t@127.0.0.1:{port}{path}")
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "cannot be reached" in ended.stderr
    assert "s3cr3t" not in ended.stderr
    assert "Traceback" not in ended.stderr


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
