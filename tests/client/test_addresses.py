"""Addresses, and what of them needs no connection."""

import pytest

import comity
from comity.addresses import targets


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("localhost:7171", ["dns:///localhost:7171"]),
        ("state.example.com", ["dns:///state.example.com:7171"]),
        ("127.0.0.1:7171", ["ipv4:127.0.0.1:7171"]),
        ("10.0.0.1:1,10.0.0.2:2", ["ipv4:10.0.0.1:1", "ipv4:10.0.0.2:2"]),
        ("[::1]:7171", ["ipv6:[::1]:7171"]),
        ("[::1]", ["ipv6:[::1]:7171"]),
        ("::1", ["ipv6:[::1]:7171"]),
        ("[::1]:1,[::2]:2", ["ipv6:[::1]:1", "ipv6:[::2]:2"]),
        ("a:1, b:2", ["dns:///a:1", "dns:///b:2"]),
        ("10.0.0.1:1,a:2,10.0.0.2:3", ["ipv4:10.0.0.1:1", "dns:///a:2", "ipv4:10.0.0.2:3"]),
    ],
)
def test_targets(address: str, expected: list[str]) -> None:
    assert targets(address) == tuple(expected)


@pytest.mark.parametrize(
    "address",
    [
        "",
        ",",
        "a:1,",
        "a:0",
        "a:65536",
        "a:port",
        ":7171",
        "http://a:1",
        "a b:1",
        "[::1",
        "a:-1",
        "a:\u0661",
        "::::bad",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        targets(address)


def test_connect_does_no_io_and_needs_no_event_loop() -> None:
    client = comity.connect("nowhere.invalid:1", namespace="n", author="a", timeout=3)
    assert (client.namespace, client.author, client.timeout) == ("n", "a", 3)
    sibling = client.with_options(namespace="m")
    assert (sibling.namespace, sibling.author, sibling.timeout) == ("m", "a", 3)
    client.watch("agents/")
    client.list("agents/")
    client.cell("n", int)


def test_the_environment_says_what_the_caller_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITY_NAMESPACE", "research")
    monkeypatch.setenv("COMITY_AUTHOR", "planner")
    assert (comity.connect().namespace, comity.connect().author) == ("research", "planner")
    assert comity.connect(namespace="n", author="").author == ""
    monkeypatch.setenv("COMITY_ADDRESS", "a:port")
    with pytest.raises(ValueError, match="'a:port' is no address"):
        comity.connect()
    monkeypatch.delenv("COMITY_NAMESPACE")
    assert comity.connect("a:1").namespace == "default"


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_is_a_number_of_seconds(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        comity.connect("a:1", timeout=timeout)
    with pytest.raises(ValueError, match="timeout"):
        comity.connect("a:1").list(timeout=timeout)


async def test_a_closed_client_says_so() -> None:
    client = comity.connect("a:1")
    sibling = client.with_options(author="b")
    await client.close()
    await client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        await sibling.get("k")
    with pytest.raises(RuntimeError, match="the client is closed"):
        await anext(client.watch())


async def test_arguments_that_exclude_each_other() -> None:
    client = comity.connect("a:1")
    with pytest.raises(TypeError):
        await client.delete()
    with pytest.raises(TypeError):
        await client.delete("k", prefix="p/")
    with pytest.raises(TypeError):
        client.watch("p/", key="k")
    with pytest.raises(TypeError):
        client.watch("p/", initial=True, from_revision=3)
    with pytest.raises(ValueError, match="progress_interval"):
        client.watch("p/", progress_interval=0.01)
    with pytest.raises(TypeError):
        await client.transact(lambda tx: None, then=[comity.Get("k")])  # type: ignore[call-overload]
