"""KeepAlive: streams on which leases are renewed, and told to have ended.

What arrives at the same time is renewed together, by namespace. A lease that a stream has kept alive is looked at for
as long as the stream lasts, all leases of a namespace at once, whosever they are: who holds one learns of its end in a
moment, and not when the next renewal is due.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import structlog

from comity.v1 import lease_pb2
from comity_server import tasks
from comity_server.access.rights import WRITE
from comity_server.errors import Draining, NotFound, StateError
from comity_server.limits import Limits
from comity_server.services import owners, wire
from comity_server.services.call import Call
from comity_server.services.receiving import Requests
from comity_server.services.renewals import Allowances, Renewal, Turnstile
from comity_server.services.validate import Checks
from comity_server.stores.protocol import Store

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.25  # how often it is looked which leases have ended
NAMESPACES: Final = 50  # that are looked at at a time
RENEWALS: Final = 1000  # of one stream that may wait, beyond which it is not read


class KeepAlives:
    """The streams of a server.

    Args:
        store: which renews leases, and knows which have ended.
        limits: for what a request may say.
    """

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self.allowances = Allowances()
        self._streams: set[_Stream] = set()
        self._holders: dict[str, dict[int, set[_Stream]]] = {}  # by namespace and lease
        self._closed = False

    async def run(self) -> None:
        """Tell streams of leases that have ended, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            names = list(self._holders)
            for start in range(0, len(names), NAMESPACES):
                await asyncio.gather(*map(self._look, names[start : start + NAMESPACES]))

    def close(self) -> None:
        """Read no more, and end each stream when what was read has its answers."""
        self._closed = True
        for stream in self._streams:
            stream.stop(Draining())

    async def stream(self, messages: Requests, call: Call) -> AsyncGenerator[bytes]:
        """Serialised answers."""
        if self._closed:
            raise Draining
        stream = _Stream(self, self._store, self._limits, call)
        self._streams.add(stream)
        try:
            with call.caller.standing(stream.look, stream.stop):
                stream.start(messages)
                async for answer in stream.answers():
                    yield answer
        finally:
            self._streams.discard(stream)
            for namespace, lease_id in stream.held:
                self.forget(namespace, lease_id, stream)
            await stream.close()

    def hold(self, namespace: str, lease_id: int, stream: "_Stream") -> None:
        """A stream is to be told of the end of a lease."""
        self._holders.setdefault(namespace, {}).setdefault(lease_id, set()).add(stream)

    def forget(self, namespace: str, lease_id: int, stream: "_Stream") -> None:
        """A stream need not be told of it any more."""
        leases = self._holders.get(namespace, {})
        streams = leases.get(lease_id, set())
        streams.discard(stream)
        if not streams:
            leases.pop(lease_id, None)
        if not leases:
            self._holders.pop(namespace, None)

    async def _look(self, namespace: str) -> None:
        held = list(self._holders.get(namespace, ()))  # all may have let go since the look began
        try:
            ended = await self._store.ended(namespace, held) if held else ()
        except StateError as error:
            log.debug("leases that have ended are not known", namespace=namespace, error=error.message)
            return
        except Exception:  # whatever it is, the other namespaces must be looked at
            log.exception("leases could not be looked at", namespace=namespace)
            return
        for lease_id in ended:
            for stream in list(self._holders.get(namespace, {}).get(lease_id, ())):
                stream.tell(namespace, lease_id)


class _Stream:
    def __init__(self, streams: KeepAlives, store: Store, limits: Limits, call: Call) -> None:
        self.held: set[tuple[str, int]] = set()  # leases that it has kept alive, and that are not known to have ended
        self._streams = streams
        self._store = store
        self._limits = limits
        self._caller = call.caller
        self._turnstile = Turnstile(streams.allowances, call.meter, self._add)
        self._own: set[tuple[str, int]] = set()  # leases that were found to be its caller's, since it was last looked
        self._renewals: deque[Renewal] = deque()
        self._ended: deque[tuple[str, int]] = deque()
        self._ready = asyncio.Event()  # there is something to do
        self._room = asyncio.Event()  # more may be read
        self._reader: asyncio.Task[None] | None = None
        self._stopped = False
        self._end: Exception | None = None  # what the stream ends with

    def start(self, messages: Requests) -> None:
        self._reader = asyncio.create_task(self._read(messages))

    def stop(self, end: Exception | None) -> None:
        """Read no more. What was read is answered, before the stream ends with an error, or without one."""
        if not self._stopped:
            self._stopped = True
            self._end = end
            self._turnstile.open()
        self._ready.set()

    def look(self) -> None:
        """Raise PermissionDenied if its caller may write nothing any more where it keeps a lease alive. Which leases
        it may renew is asked again when it does."""
        self._own = set()  # another one: what is being asked goes into the old one
        for namespace in {namespace for namespace, _ in self.held}:
            checks = Checks(self._limits, self._caller, namespace)
            checks.somewhere(WRITE)
            checks.finish()

    def tell(self, namespace: str, lease_id: int) -> None:
        """A lease has ended."""
        self._drop(namespace, lease_id)
        self._ended.append((namespace, lease_id))
        self._ready.set()

    async def close(self) -> None:
        if self._reader is not None:
            await tasks.end(self._reader)
        await self._turnstile.close()
        self._end = None  # whose frames have what was read last

    async def answers(self) -> AsyncGenerator[bytes]:
        while True:
            await self._ready.wait()
            self._ready.clear()
            async for answer in self._renew():
                yield answer
            while self._ended:
                yield _answer(*self._ended.popleft(), 0)
            if self._stopped and not self._renewals:
                if self._end is not None:
                    raise self._end
                return

    async def _renew(self) -> AsyncGenerator[bytes]:
        """Renew what has arrived."""
        if not self._renewals:
            return
        renewals, self._renewals = self._renewals, deque()
        self._room.set()
        together: defaultdict[str, list[Renewal]] = defaultdict(list)
        for renewal in renewals:
            together[renewal.namespace].append(renewal)
        done = await asyncio.gather(*(self._keep_alive(*one) for one in together.items()))
        for some, lives in zip(together.values(), done, strict=True):
            for renewal, micros in zip(some, lives, strict=True):
                namespace, lease_id, _ = renewal
                self._turnstile.done(renewal, micros)
                if micros:
                    self.held.add((namespace, lease_id))
                    self._streams.hold(namespace, lease_id, self)
                else:
                    self._drop(namespace, lease_id)
                yield _answer(namespace, lease_id, micros)

    async def _keep_alive(self, namespace: str, renewals: Sequence[Renewal]) -> Sequence[int]:
        """Renew leases of a namespace. Returns how long each lives, in µs; 0: it has ended."""
        asked = list(dict.fromkeys(renewal.lease_id for renewal in renewals if not renewal.ended))
        lives = dict(zip(asked, await self._store.keep_alive(namespace, asked) if asked else (), strict=True))
        return [0 if renewal.ended else lives[renewal.lease_id] for renewal in renewals]

    def _add(self, renewals: Sequence[Renewal]) -> None:
        self._renewals.extend(renewals)
        self._ready.set()

    def _drop(self, namespace: str, lease_id: int) -> None:
        self.held.discard((namespace, lease_id))
        self._own.discard((namespace, lease_id))
        self._streams.forget(namespace, lease_id, self)

    async def _read(self, messages: Requests) -> None:
        try:
            soon = True
            while True:
                request, place, size = await messages.admitted(soon=soon)
                place.leave()
                soon = False
                namespace, lease_id = request.namespace, request.lease_id
                checks = Checks(self._limits, self._caller)
                checks.namespace("namespace", namespace)
                checks.lease_id("lease_id", lease_id)
                checks.somewhere(WRITE)
                checks.finish()
                ended = not await self._may_renew(namespace, lease_id)
                if self._stopped:
                    return
                await self._turnstile.enter(Renewal(namespace, lease_id, ended), size)
                while len(self._renewals) >= RENEWALS:
                    self._room.clear()
                    await self._room.wait()
        except EOFError:
            self.stop(None)
        except asyncio.CancelledError as error:
            if not self._stopped:  # nobody asked for it, and the stream must not wait for ever
                self.stop(tasks.unforeseen(error))
            raise
        except Exception as error:  # noqa: BLE001 - the call ends with it
            self.stop(error)

    async def _may_renew(self, namespace: str, lease_id: int) -> bool:
        """Whether there is a lease to renew. Raises PermissionDenied if it is not its caller's to do so."""
        principal = owners.required(self._caller, namespace)
        if principal is None or (namespace, lease_id) in self._own:
            return True
        own = self._own
        try:
            await owners.check(self._store, principal, namespace, lease_id)
        except NotFound:  # an id that there is not yet may be another's in a moment
            return False
        own.add((namespace, lease_id))
        return True


def _answer(namespace: str, lease_id: int, micros: int) -> bytes:
    response = lease_pb2.KeepAliveResponse(namespace=namespace, lease_id=lease_id)
    wire.fill_duration(response.ttl, micros)
    return response.SerializeToString()
