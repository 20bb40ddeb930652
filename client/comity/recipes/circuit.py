"""What the store says of a circuit, followed by a watch so that to look costs no call."""

import asyncio
import contextlib
import contextvars
from collections.abc import Iterable
from typing import Final, NamedTuple

from comity.client import Client
from comity.errors import ComityError
from comity.leases.living import Living
from comity.model import Entry, Resync

__all__ = ["Circuit", "Found"]

PROGRESS_SECONDS: Final = 1.0  # between signs of life: without three of them the watch is taken for lost


class Found(NamedTuple):
    """What the store says."""

    tripped: Entry | None = None  # since it opened, until it closes
    open: Entry | None = None  # as long as nobody may call
    probe: Entry | None = None  # as long as somebody finds out whether it works again
    open_revision: int = 0  # the mod_revision of that key, also if nobody's lease keeps it; 0: it is absent
    probe_revision: int = 0


class Keys(NamedTuple):
    tripped: str
    open: str
    probe: str


class Circuit:
    """One circuit, as one event loop sees it. The watch begins with the first look."""

    def __init__(self, state: Client, root: str, reset_after: float) -> None:
        self.prefix = f"{root}state/"
        self.keys = Keys(f"{self.prefix}tripped", f"{self.prefix}open", f"{self.prefix}probe")
        self.last = Found()
        self._state = state
        self._reset_after = reset_after
        self._living = Living(state)
        self._entries: dict[str, Entry] = {}
        self._revision = 0  # of the entries
        self.resyncs = 0  # of the watch: with each, revisions may mean something else than before
        self._clock = asyncio.get_running_loop().time
        self._open_until = 0.0
        self._counted = 0  # the lease by which that is known, and not only said
        self._away = False
        self._known = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    @property
    def known(self) -> bool:
        """Whether `last` says what the store has said, and not only nothing yet."""
        return self._known.is_set()

    @property
    def ended(self) -> bool:
        """Whether it follows the store no longer, for whatever reason."""
        return self._following is not None and self._following.done()

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def now(self) -> Found:
        """What is so now. Raises what reading it raises, if it has to be read."""
        if self._following is None:
            # In a context of its own: it is no part of the call that happens to be the first.
            follow = self._follow()
            self._following = asyncio.get_running_loop().create_task(follow, context=contextvars.Context())
        if not self._known.is_set():
            known = asyncio.ensure_future(self._known.wait())
            try:
                await asyncio.wait([known, self._following], return_when=asyncio.FIRST_COMPLETED)
            finally:
                known.cancel()
            if self._following.done() and not self._following.cancelled():
                self._following.result()
        elif self._away or self._following.done():
            resyncs = self.resyncs
            listing = self._state.list(self.prefix)
            entries = await listing.all()
            if await self.see(entries, listing.revision, resyncs):
                await self._count_down()
        return self.last

    async def see(self, entries: Iterable[Entry], revision: int, resyncs: int, *, anew: bool = True) -> bool:
        """Take over what the store said as of a revision, so that no look says what was before. Whether that was news:
        what is older than what was seen is ignored, and anything before the watch, which begins with all there is.

        resyncs: how many there were before the store was asked.
        """
        by_key = {entry.key: entry for entry in entries}
        tripped, opened, probe = (by_key.get(key) for key in self.keys)
        living = await self._living.among((entry for entry in (opened, probe) if entry is not None), anew=anew)
        if self._following is None or resyncs != self.resyncs or revision < self._revision:
            return False
        self._entries, self._revision = by_key, revision
        found = Found(
            tripped,
            opened if opened in living else None,
            probe if probe in living else None,
            0 if opened is None else opened.mod_revision,
            0 if probe is None else probe.mod_revision,
        )
        before, self.last = self.last, found
        if found.open is not None and (before.open is None or found.open.lease_id != before.open.lease_id):
            self._open_until = self._clock() + self._reset_after
        return True

    def remaining(self) -> float:
        """Seconds until somebody may call; 0 if it is not open."""
        return 0.0 if self.last.open is None else max(0.0, self._open_until - self._clock())

    async def _follow(self) -> None:
        watch = self._state.watch(
            self.prefix, initial=True, progress_interval=PROGRESS_SECONDS, on_connection=self._notice
        )
        async with watch:
            async for commit in watch.commits():
                if isinstance(commit, Resync):
                    if self._known.is_set():
                        self.resyncs += 1
                        self._revision = 0
                    news = await self.see(commit.entries, commit.revision, self.resyncs)
                else:
                    entries = dict(self._entries)
                    for event in commit.events:
                        entries.pop(event.key, None)
                        if event.is_put:
                            entries[event.key] = event.entry
                    news = await self.see(entries.values(), commit.revision, self.resyncs, anew=False)
                if news:
                    await self._count_down()
                self._known.set()

    def _notice(self, lost: ComityError | None) -> None:
        self._away = lost is not None

    async def _count_down(self) -> None:
        """Find out how long it will be open: for people, as it is over when the store says so."""
        opened = self.last.open
        if opened is not None and opened.lease_id != self._counted:
            self._counted = opened.lease_id
            with contextlib.suppress(ComityError):
                self._open_until = self._clock() + (await self._state.get_lease(opened.lease_id)).remaining
