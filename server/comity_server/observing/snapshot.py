"""How a server stands at a moment: what `GetStatus` and the gauges of the metrics show beside the counts."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from comity_server.committer import Committer
from comity_server.errors import StateError
from comity_server.feed import Feed
from comity_server.model import NamespaceInfo
from comity_server.stores.protocol import Store
from comity_server.telemetry.tally import NAMESPACES, OTHER, Tally

log = structlog.get_logger(__name__)

BEHIND: Final = (0, 10, 100, 1000, 10_000)  # revisions; streams are counted by the first of these that they are within
LEAST_AGE: Final = 0.2  # seconds that a snapshot is good for
TIMES: Final = 10  # and so many times what it took to look
PAGE: Final = 200  # namespaces that are looked at in one go
LOOKED_AT: Final = 10_000  # namespaces that are looked at
LOOK_SECONDS: Final = 1.0  # how long that may take: of a store that does not answer, what was known last is told
THREAD_SECONDS: Final = 3.0  # how long another thread waits for a new one
HUNG_SECONDS: Final = 5.0  # and how long, when it waited in vain, no thread waits again
BEAT: Final = 0.25  # seconds between looks at how late the event loop is


class Sizes(NamedTuple):
    """Of some namespaces. Sizes in bytes."""

    namespaces: int = 0
    keys: int = 0
    size: int = 0
    commits: int = 0
    history_size: int = 0
    leases: int = 0

    @classmethod
    def of(cls, infos: Iterable[NamespaceInfo]) -> "Sizes":
        """Theirs together."""
        each = [
            (1, info.key_count, info.size_bytes, info.commit_count, info.history_size_bytes, info.lease_count)
            for info in infos
        ]
        return cls(*map(sum, zip(*each, strict=True)))


class Snapshot(NamedTuple):
    """Namespaces have their names up to NAMESPACES of them: those first that this server has written to."""

    answering: bool = True  # whether the event loop has come to look; if not, what follows is what was so before
    trouble: str = "the store is not open"
    draining: bool = False
    connections: int = 0
    pending: int = 0
    pending_bytes: int = 0
    streams_behind: Sequence[int] = (0,) * (len(BEHIND) + 1)  # within each of BEHIND, and beyond
    lag: int = 0  # the longest, in revisions
    lag_sum: int = 0
    namespaces: Sequence[NamespaceInfo] = ()
    others: Sizes = Sizes()
    everything: Sizes = Sizes()
    named: bool = True  # if not, no name of a namespace is to be told


class Serving(Protocol):
    """What is asked about calls."""

    @property
    def draining(self) -> bool: ...

    @property
    def connections(self) -> int: ...


class Observer:
    """Looks at a server, from its event loop or from another thread."""

    def __init__(self, store: Store, committer: Committer, feed: Feed, calls: Serving, tally: Tally) -> None:
        self._store = store
        self._committer = committer
        self._feed = feed
        self._calls = calls
        self._tally = tally
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._last = Snapshot()
        self._looked_at = 0.0
        self._hung_until = 0.0
        self._good_until = 0.0  # of what is known of namespaces

    async def run(self) -> None:
        """Measure how late the event loop is, until cancelled."""
        self._loop = loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + BEAT
            await asyncio.sleep(BEAT)
            self._tally.loop_delays.add(max(0.0, loop.time() - due))

    async def look(self) -> Snapshot:
        """How the server stands now; of namespaces, how they stood a moment ago if it takes long to look at them."""
        async with self._turn:
            if time.monotonic() >= self._good_until:
                begun = time.monotonic()
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._look_at_namespaces()
                except TimeoutError:
                    log.debug("namespaces could not be looked at in time")
                now = time.monotonic()
                self._good_until = now + max(LEAST_AGE, TIMES * (now - begun))
        lags = self._feed.lags()
        behind = [0] * (len(BEHIND) + 1)
        for lag in lags:
            behind[next((place for place, most in enumerate(BEHIND) if lag <= most), len(BEHIND))] += 1
        self._last = self._last._replace(
            answering=True,
            trouble=self._trouble(),
            draining=self._calls.draining,
            connections=self._calls.connections,
            pending=self._committer.pending,
            pending_bytes=self._committer.pending_bytes,
            streams_behind=behind,
            lag=max(lags, default=0),
            lag_sum=sum(lags),
        )
        self._looked_at = time.monotonic()
        self._hung_until = 0.0
        return self._last

    def look_from_thread(self) -> Snapshot:
        """The same, asked by another thread. All that is asked at about the same time is told the same; and what was
        seen last, as not `answering`, where the event loop does not come to it in time or has not just before."""
        now = time.monotonic()
        if self._loop is None or self._loop.is_closed() or now < self._looked_at + LEAST_AGE:
            return self._last
        if now < self._hung_until:
            return self._last._replace(answering=False)
        looking = self.look()
        try:
            asked = asyncio.run_coroutine_threadsafe(looking, self._loop)
        except RuntimeError:  # closed just now
            looking.close()
            return self._last
        try:
            return asked.result(THREAD_SECONDS)
        except TimeoutError:
            asked.cancel()
            self._hung_until = time.monotonic() + HUNG_SECONDS
            return self._last._replace(answering=False)

    def _trouble(self) -> str:
        try:
            if self._store.writable():
                return ""
            return self._store.trouble() or "the store cannot commit"
        except Exception:  # noqa: BLE001 - which health logs
            return "the store cannot be asked"

    async def _look_at_namespaces(self) -> None:
        found: dict[str, NamespaceInfo] = {}
        after = ""
        try:
            while page := await self._store.namespaces("", after=after, limit=PAGE):
                found |= {info.name: info for info in page}
                after = page[-1].name
                if len(page) < PAGE or len(found) >= LOOKED_AT:
                    break
                await asyncio.sleep(0)
            else:
                page = ()
        except StateError as error:
            log.debug("namespaces could not be looked at", error=error.message)
            return
        if len(page) < PAGE:
            self._tally.forget(found)
        written = self._tally.namespaces.keys() - {OTHER}
        # One that is called like the others together comes last, so that it is one of them where there are any.
        infos = sorted(found.values(), key=lambda info: (info.name == OTHER, info.name not in written))
        self._last = self._last._replace(
            namespaces=infos[:NAMESPACES], others=Sizes.of(infos[NAMESPACES:]), everything=Sizes.of(infos)
        )
