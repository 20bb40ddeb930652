"""A deployment as an operator has one: servers with certificates, tokens and a policy in files, all of which can be
replaced while they serve, and a connection to each that can be cut."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import comity
from comity_server.access.tokens import line_of, new_token
from tests import servers
from tests.authority import Authority
from tests.proxy import Proxy
from tests.servers import Server

WORKER = "worker"
GUEST = "guest"
POLICY = """
[[rules]]  # turn {turn}
principals = ["worker"]
namespaces = ["*"]
allow = ["read", "write", "admin"]
"""
WELCOME = """
[[rules]]
principals = ["guest"]
namespaces = ["*"]
prefixes = ["own/"]
allow = ["read"]
"""


class Papers:
    """The files. What the clients use follows by itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = Authority()
        self._turn = 0
        self.ca = self._authority.write(folder)
        self._guest = new_token()
        self._tokens: list[str] = []
        self.renew_certificate()
        self.change_policy(welcome=True)
        self.add_token()

    @property
    def arguments(self) -> Sequence[str]:
        """What a server is told of them."""
        names = {"--tls-cert": "cert.pem", "--tls-key": "key.pem", "--tokens": "tokens", "--policy": "policy.toml"}
        return [part for flag, name in names.items() for part in (flag, str(self._folder / name))]

    def connecting(self) -> dict[str, Any]:
        """How a worker connects."""
        return {"tls": comity.TLS(ca=self.ca), "token": lambda: self._tokens[0]}

    def connecting_guest(self) -> dict[str, Any]:
        return {"tls": comity.TLS(ca=self.ca), "token": self._guest}

    def renew_certificate(self) -> None:
        self._authority.server().write(self._folder)

    def change_policy(self, *, welcome: bool) -> None:
        """Whether guests are welcome."""
        self._turn += 1
        self._write("policy.toml", (POLICY.format(turn=self._turn) + (WELCOME if welcome else "")).encode())

    def break_policy(self) -> None:
        """It is no policy any more."""
        self._write("policy.toml", b"[[rules]]\nprincipals = 1\n")

    def add_token(self) -> None:
        """Another token for the workers, who go on with the one that they have."""
        self._tokens.append(new_token())
        self._write_tokens()

    def drop_tokens(self) -> None:
        """Only the newest token holds from now on, and workers have it."""
        del self._tokens[:-1]
        self._write_tokens()

    def _write_tokens(self) -> None:
        lines = [line_of(WORKER, token) for token in self._tokens] + [line_of(GUEST, self._guest)]
        self._write("tokens", "\n".join(lines).encode())

    def _write(self, name: str, content: bytes) -> None:
        """Have another file take the place of what there is."""
        new = self._folder / f"{name}.new"
        new.write_bytes(content)
        new.rename(self._folder / name)


class Site:
    """The servers of one store, and what the clients reach them by."""

    def __init__(self, name: str, own: Sequence[Server], proxies: Sequence[Proxy]) -> None:
        self.name = name
        self.servers = own
        self.proxies = proxies

    @property
    def orders(self) -> Iterator[str]:
        """The addresses of the servers, each time with another one first."""
        addresses = [proxy.address for proxy in self.proxies]
        for place in range(len(addresses)):
            yield ",".join(addresses[place:] + addresses[:place])

    async def restart(self, place: int, *, kill: bool) -> None:
        server = self.servers[place]
        if kill:
            await asyncio.to_thread(server.kill)
        else:
            assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(server.restart)

    async def cut(self) -> None:
        """Break all connections."""
        for proxy in self.proxies:
            await proxy.cut()

    def look_at_files(self) -> None:
        for server in self.servers:
            server.process.send_signal(signal.SIGHUP)


@asynccontextmanager
async def site(name: str, count: int, store: str, *arguments: str) -> AsyncIterator[Site]:
    """So many servers over a store."""
    async with AsyncExitStack() as stack:
        starts = [asyncio.to_thread(servers.start, "--store", store, *arguments) for _ in range(count)]
        own = [stack.enter_context(server) for server in await asyncio.gather(*starts)]
        proxies = [await stack.enter_async_context(Proxy(server.address)) for server in own]
        yield Site(name, own, proxies)
