"""Tokens: what calls and streams bear, and what becomes of those that hold no more."""

import asyncio
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import comity
from comity import sync
from comity.access import Access
from tests import servers
from tests.client.secured import replace, take, tokens
from tests.servers import Server
from tests.waiting import until

FIRST, SECOND, THIRD = (f"cmt_{letter * 43}" for letter in "abc")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's token file."""
    return tmp_path_factory.mktemp("tokens") / "tokens"


@pytest.fixture(scope="module")
def guarded(known: Path) -> Iterator[Server]:
    """A server that knows who calls by tokens alone."""
    known.write_text(tokens(ann=FIRST))
    with servers.start("--tokens", str(known)) as running:
        yield running


async def test_calls_and_streams_bear_it(guarded: Server, namespace: str) -> None:
    async with comity.connect(guarded.address, namespace=namespace, token=FIRST) as state, state.lease(5.0) as lease:
        await state.put("a", 1, lease=lease)
        await state.wait_for_ready()
        await state.with_options(author="ann/two").put("b", 1)
        async with state.watch(initial=True) as watch:
            assert isinstance(await anext(watch), comity.Resync)
        assert await state.renew_lease(lease.id) > 0
        assert {commit.author async for commit in state.history()} == {"ann", "ann/two"}


async def test_without_it_nothing_is_done(guarded: Server, namespace: str) -> None:
    for wrong in (None, THIRD):
        async with comity.connect(guarded.address, namespace=namespace, token=wrong, timeout=60) as state:
            for call in (
                state.get("a"),
                state.put("a", 1),
                state.watch().ready(),
                state.grant_lease(5.0),
                state.delete_namespace(),
            ):
                with pytest.raises(comity.Unauthenticated, match="token") as raised:
                    await asyncio.wait_for(call, 20)
                assert THIRD not in str(raised.value)


async def test_a_new_token_in_a_file_goes_unnoticed(
    guarded: Server, known: Path, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls, a watch and a lease go on when the old token ends, though it is replaced at the last moment."""
    file = tmp_path / "token"
    file.write_text(FIRST + "\n")
    await take(guarded, known, FIRST)
    monkeypatch.setenv("COMITY_TOKEN_FILE", str(file))
    async with comity.connect(guarded.address, namespace=namespace, timeout=60) as state, state.lease(60.0) as lease:
        watch = state.watch("a")
        await watch.ready()
        await state.put("a", 1)
        await renewed(lease)  # as it is half a second after its grant, and then a third of the ttl later
        replace(file, SECOND)
        await asyncio.gather(take(guarded, known, SECOND), renewed(lease))  # as it is on each stream that begins
        await state.put("a", 2)
        assert await values_of(watch, 2) == [1, 2]
        lease.check()


async def test_a_function_that_has_another_is_asked_again(guarded: Server, known: Path, namespace: str) -> None:
    await take(guarded, known, FIRST)
    given: list[str] = []

    def ask() -> str:
        return given.pop() if given else FIRST

    async with comity.connect(guarded.address, namespace=namespace, token=ask, timeout=60) as state:
        for call in (
            lambda: state.put("a", 1),
            lambda: state.delete("a"),
            state.namespace_info,
            state.watch("a").ready,
        ):
            given.append(THIRD)
            await call()
            assert not given


async def test_a_function_whose_tokens_are_all_refused_is_not_asked_for_ever(guarded: Server, namespace: str) -> None:
    asked = 0

    def ask() -> str:
        nonlocal asked
        asked += 1
        return f"cmt_{asked:043}"

    async with comity.connect(guarded.address, namespace=namespace, token=ask, timeout=60) as state:
        with pytest.raises(comity.Unauthenticated):
            await asyncio.wait_for(state.namespace_info(), 20)
        assert asked == 3  # of a call, for the comparison with what there is then, and of the second call
    async with comity.connect(guarded.address, namespace=namespace, token=ask, timeout=0.5) as state:
        with pytest.raises((comity.Unauthenticated, comity.DeadlineExceeded)):
            await asyncio.wait_for(state.watch().ready(), 20)


async def test_a_watch_goes_on_over_several_new_tokens_in_one_outage(
    guarded: Server, known: Path, namespace: str
) -> None:
    """Each that it finds is tried, until the server takes one; if there is none, that is its end."""
    await take(guarded, known, FIRST)
    rest = [f"cmt_{turn:043}" for turn in range(6)]  # two are asked for in each turn
    given: list[str] = []

    def ask() -> str:
        return given.pop(0) if given else SECOND

    given.append(FIRST)
    async with comity.connect(guarded.address, namespace=namespace, token=ask, timeout=60) as state:
        watch = state.watch("a")
        await watch.ready()
        given.extend(rest)
        await take(guarded, known, SECOND)
        async with comity.connect(guarded.address, namespace=namespace, token=SECOND, timeout=60) as writer:
            await writer.put("a", 1)
        assert await asyncio.wait_for(values_of(watch, 1), 20) == [1]
        assert not given
        await take(guarded, known, THIRD)
        with pytest.raises(comity.Unauthenticated):
            await asyncio.wait_for(anext(watch), 20)


@pytest.mark.parametrize(
    ("returned", "why"),
    [
        (None, "there is no token: what the function of the token returns must be a str, not NoneType"),
        ("", "there is no token: what the function of the token returns is empty"),
        ("a b", "there is no token: what the function of the token returns must be of letters, digits"),
        (OSError("the vault is shut"), "there is no token: the vault is shut"),
    ],
)
async def test_a_function_that_has_none(guarded: Server, returned: object, why: str) -> None:
    def ask() -> str:
        if isinstance(returned, Exception):
            raise returned
        return returned  # type: ignore[return-value]

    async with comity.connect(guarded.address, token=ask) as state:
        for call in (state.get("a"), state.namespace_info(), state.watch().ready()):
            with pytest.raises(comity.Unauthenticated) as raised:
                await call
            assert raised.value.message.startswith(why)
            assert raised.value.reason == "NO_TOKEN"


async def test_without_async_and_in_threads(guarded: Server, known: Path, namespace: str) -> None:
    await take(guarded, known, FIRST)
    asked_in: set[str] = set()

    def ask() -> str:
        asked_in.add(threading.current_thread().name)
        return FIRST

    def work() -> None:
        with sync.connect(guarded.address, namespace=namespace, token=ask) as state:
            state.put("a", 1)
            assert [entry.value for entry in state.list()] == [1]

    await asyncio.to_thread(work)
    assert threading.current_thread().name not in asked_in


@pytest.mark.parametrize(
    ("token", "kind", "why"),
    [
        ("", ValueError, "the token is empty"),
        ("a b", ValueError, "the token must be of letters"),
        ("a\n", ValueError, "the token begins or ends with a space or the end of a line"),
        ("t\u00f6ken", ValueError, "the token must be of letters"),
        ("a" * 8001, ValueError, "the token has more than 8000 characters"),
        (b"token", TypeError, "token must be a str or a function"),
        (5, TypeError, "token must be a str or a function"),
        (take, TypeError, "token must be a function that returns a str: an async one"),
    ],
)
def test_what_is_no_token_is_refused(token: object, kind: type[Exception], why: str) -> None:
    with pytest.raises(kind, match=why):
        comity.connect(token=token)  # type: ignore[arg-type]


def test_files_that_hold_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe")
    for path, why in (
        (tmp_path / "none", "cannot read"),
        (tmp_path, "is no file"),
        (empty, "is empty"),
        (binary, "must be of letters"),
    ):
        monkeypatch.setenv("COMITY_TOKEN_FILE", str(path))
        with pytest.raises(ValueError, match=why) as raised:
            comity.connect()
        assert str(path) in str(raised.value)


def test_a_file_that_is_wrong_later_leaves_the_token_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text(FIRST)
    file = comity.TokenFile(path)
    path.unlink()
    assert file() == FIRST
    replace(path, "no token")
    assert file() == FIRST
    assert file() == FIRST
    replace(path, f"  {SECOND}\n")
    assert file() == SECOND
    path.write_text(FIRST + "\n", "utf-8-sig")  # as some editors do
    assert file() == FIRST
    assert len(caplog.messages) == 2
    assert not any("no token" in said for said in caplog.messages)


@pytest.mark.parametrize("address", ["10.0.0.1", "state.example.com", "127.0.0.1,10.0.0.1:1", "[::2]:1"])
def test_it_is_not_sent_in_plain_text_to_others(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a token is not sent in plain text to another machine"):
        comity.connect(address, token=FIRST)
    assert comity.connect(address, token=FIRST, tls=True)._access.tls == comity.TLS()
    assert comity.connect(address, token=FIRST, tls=False)._access.tls is None
    monkeypatch.setenv("COMITY_TOKEN", FIRST)
    with pytest.raises(ValueError, match="a token is not sent in plain text"):
        comity.connect(address)
    monkeypatch.setenv("COMITY_TLS", "0")
    assert comity.connect(address)._access.token == FIRST


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.8.0.1:1", "localhost", "LOCALHOST.:1", "::1", "[::ffff:127.0.0.1]:1"]
)
def test_it_is_sent_in_plain_text_on_this_machine(address: str) -> None:
    comity.connect(address, token=FIRST)


def test_it_is_shown_by_nothing(tmp_path: Path) -> None:
    client = comity.connect(token=FIRST)
    assert FIRST not in repr(client._access)
    assert FIRST not in f"{vars(client)}"
    path = tmp_path / "token"
    path.write_text(FIRST)
    access = Access("127.0.0.1:1", comity.TLS(path), comity.TokenFile(path))
    assert FIRST not in repr(access)
    again = pickle.loads(pickle.dumps(access))
    assert again.tls == access.tls
    assert callable(again.token)
    assert again.token() == FIRST


async def renewed(lease: comity.Lease) -> None:
    """Wait until it is."""
    clock = asyncio.get_running_loop().time
    ends = clock() + lease.remaining
    await until(lambda: clock() + lease.remaining > ends + 0.01)


async def values_of(watch: comity.Watch, count: int) -> list[object]:
    events = [await anext(watch) for _ in range(count)]
    return [event.entry.value for event in events if isinstance(event, comity.Event)]


RULES = """
[[rules]]
principals = ["ann"]
namespaces = ["*"]
prefixes = [{prefixes}]
allow = ["read", "write"]
"""


async def test_what_is_not_allowed_any_more_ends(tmp_path: Path, namespace: str) -> None:
    """Each watch for itself, with the reason; the others go on."""
    known, policy = tmp_path / "tokens", tmp_path / "policy.toml"
    known.write_text(tokens(ann=FIRST))
    policy.write_text(RULES.format(prefixes='"a/", "b/"'))
    with servers.start("--tokens", str(known), "--policy", str(policy)) as server:
        async with comity.connect(server.address, namespace=namespace, token=FIRST, timeout=60) as state:
            for call in (state.put("c/1", 1), state.get("c/1"), state.watch("c/").ready(), state.compact(1)):
                with pytest.raises(comity.PermissionDenied) as raised:
                    await call
                assert (raised.value.principal, raised.value.namespace) == ("ann", namespace)
            ended, kept = state.watch("a/"), state.watch("b/")
            await ended.ready()
            await kept.ready()
            replace(policy, RULES.format(prefixes='"b/"'))
            server.process.send_signal(signal.SIGHUP)
            with pytest.raises(comity.PermissionDenied):
                await asyncio.wait_for(anext(ended), 20)
            await state.put("b/1", 1)
            assert await values_of(kept, 1) == [1]
