"""Two deployments under a mixed load, and all that an operator, a network and a lack of luck can do to them: servers
drained and killed, connections cut, certificates, tokens and the policy replaced. What was answered stays, nothing is
applied twice, whatever fails is an error that a client can act on, and the memory stays flat.

For two minutes with few calls; under COMITY_SOAK=1 for COMITY_SOAK_SECONDS (an hour) with many.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

import comity
from comity import ComityError
from tests.faults.mixed import COUNTED, GUARDED, OWN, Mixed
from tests.faults.site import Papers, Site, site
from tests.faults.slope import Slope
from tests.memory import MIB, memory
from tests.redis_servers import RedisServer, program
from tests.standing import where_tasks_wait
from tests.waiting import until

pytestmark = pytest.mark.skipif(program() is None, reason="there is no redis-server")

SOAK = os.environ.get("COMITY_SOAK") == "1"
DURATION = float(os.environ.get("COMITY_SOAK_SECONDS", "3600")) if SOAK else 120.0
PAUSE = 0.2 if SOAK else 2.0  # seconds between two calls of one that makes them
BETWEEN = 250 if SOAK else 4  # calls of each, between two blows
TTL = 20.0  # seconds, of leases
RETENTION = 5_000 if SOAK else 1_000  # commits: so many are there when memory is weighed, and no more
SECONDS = 90.0  # in which all goes on after a blow, and for which nobody may stand still
SAMPLE_SECONDS = 5.0 if SOAK else 1.0
SETTLE_SECONDS = DURATION / 6  # in which the history comes to its bound, and nothing is weighed
WARM_SECONDS = 120.0 if SOAK else 5.0  # likewise of each process, which takes up what it needs
MOST_MIB_PER_HOUR = 60.0
JUDGED_SECONDS = 1800.0  # of a shorter run the slopes are only told

# A call that fails says so by one of these: that it may be made again, or that what it held is lost.
ACTED_ON = (comity.Unavailable, comity.DeadlineExceeded, comity.LeaseLost, comity.RateLimited)

IN_FORCE = "a file has changed and is in force"
WRONG = "a file cannot be used"


class Guest:
    """Somebody whom the policy lets read, or not."""

    def __init__(self, place: Site, papers: Papers) -> None:
        self.reads: bool | None = None  # whether it may, by the last answer
        self.watches: bool | None = None  # whether it is let, by the last word of a watch
        self._client = comity.connect(next(place.orders), namespace=place.name, **papers.connecting_guest())

    async def run(self) -> None:
        async with self._client, asyncio.TaskGroup() as group:
            group.create_task(self._read())
            group.create_task(self._watch())

    def is_let(self, welcome: bool) -> bool:
        return self.reads is welcome and self.watches is welcome

    async def _read(self) -> None:
        while True:
            try:
                await self._client.get(f"{OWN}put-0")
                self.reads = True
            except comity.PermissionDenied:
                self.reads = False
            except ACTED_ON:
                pass
            await asyncio.sleep(PAUSE)

    async def _watch(self) -> None:
        while True:
            try:
                async with self._client.watch(OWN) as watch:
                    await watch.ready()
                    self.watches = True
                    async for _ in watch:
                        pass
            except comity.PermissionDenied:
                self.watches = False
            except ACTED_ON:
                pass
            await asyncio.sleep(PAUSE)


class Chaos:
    """The sites with their loads, and what befalls them."""

    def __init__(self, papers: Papers, sites: Sequence[Site]) -> None:
        self.papers = papers
        self.sites = sites
        self.failures: Counter[str] = Counter()
        self.blows: Counter[str] = Counter()
        self.loads = [
            Mixed(site.name, pause=PAUSE, ttl=TTL, judge=self._judge, connecting=papers.connecting()) for site in sites
        ]
        self.guests = [Guest(site, papers) for site in sites]
        self.servers = Slope(WARM_SECONDS)
        self.clients = Slope(WARM_SECONDS)
        self._dice = random.Random(DURATION)

    def _judge(self, name: str, error: ComityError) -> None:
        """A call failed."""
        made_again = isinstance(error, comity.Conflict) and name.startswith("put-")  # the put before was applied late
        if not made_again and not isinstance(error, ACTED_ON):
            raise error
        self.failures[f"{type(error).__name__}({error.reason})"] += 1

    async def run(self, seconds: float) -> None:
        """Strike for so long, and let all come to their end."""
        async with asyncio.TaskGroup() as group:
            running, around = [], [group.create_task(self._weigh())]
            for place, load in zip(self.sites, self.loads, strict=True):
                orders = list(place.orders)
                async with load.connect(orders[0]) as client:
                    await load.begin(client)
                running.append(group.create_task(load.run(orders)))
            around += [group.create_task(guest.run()) for guest in self.guests]
            for load in self.loads:
                await until(load.begun, SECONDS)
            await self._strike(time.monotonic() + seconds)
            for load in self.loads:
                load.ended = True
            await asyncio.wait(running)
            for task in around:
                task.cancel()

    async def _strike(self, end: float) -> None:
        blows = [
            self._drain, self._renew_certificate, self._cut, self._send_guests_away, self._kill, self._replace_token,
            self._break_policy,
        ]  # fmt: skip
        while True:
            self._dice.shuffle(blows)
            for blow in blows:
                await blow()
                self.blows[blow.__name__.strip("_")] += 1
                await self._all_go_on(2)
                for load in self.loads:
                    load.books.settle()
                if time.monotonic() < end:
                    await self._all_go_on(BETWEEN)
                elif len(self.blows) == len(blows):
                    return

    async def _all_go_on(self, calls: int) -> None:
        """Each makes so many calls, however long that takes, and none stands still meanwhile."""
        ended = [load.advanced(calls) for load in self.loads]
        while not all(one() for one in ended):
            behind = {load.namespace: load.behind(min(calls, 2)) for load in self.loads}
            try:
                await until(lambda: not any(one() for one in behind.values()), SECONDS)  # noqa: B023 - awaited here
            except TimeoutError:
                names = {name: one() for name, one in behind.items()}
                raise AssertionError(f"{names} stand still, where\n{where_tasks_wait()}") from None

    # Blows

    async def _drain(self) -> None:
        await self._restart(kill=False)

    async def _kill(self) -> None:
        await self._restart(kill=True)

    async def _restart(self, *, kill: bool) -> None:
        """One server of each site."""
        async with asyncio.TaskGroup() as group:
            for each in self.sites:
                group.create_task(each.restart(self._dice.randrange(len(each.servers)), kill=kill))

    async def _cut(self) -> None:
        for each in self.sites:
            await each.cut()

    async def _renew_certificate(self) -> None:
        async with self._told(IN_FORCE, "certificates"):
            self.papers.renew_certificate()
        await self._cut()  # so that the new one is shown

    async def _replace_token(self) -> None:
        async with self._told(IN_FORCE, "tokens"):
            self.papers.add_token()
        async with self._told(IN_FORCE, "tokens"):
            self.papers.drop_tokens()

    async def _send_guests_away(self) -> None:
        await self._welcome(False)
        await self._welcome(True)

    async def _break_policy(self) -> None:
        """What was in force stays."""
        async with self._told(WRONG, "policy"):
            self.papers.break_policy()
        await self._all_go_on(1)
        await self._welcome(True)

    async def _welcome(self, welcome: bool) -> None:
        async with self._told(IN_FORCE, "policy"):
            self.papers.change_policy(welcome=welcome)
        await until(lambda: all(guest.is_let(welcome) for guest in self.guests), SECONDS)

    @asynccontextmanager
    async def _told(self, event: str, what: str) -> AsyncIterator[None]:
        """What the block does to a file every server has told of at the end."""
        own = [server for each in self.sites for server in each.servers]

        def count() -> list[int]:
            lines = [server.log().splitlines() for server in own]
            return [sum(event in line and f'"what": "{what}"' in line for line in told) for told in lines]

        before = count()
        yield
        for each in self.sites:
            each.look_at_files()
        await until(lambda: all(now > then for now, then in zip(count(), before, strict=True)), SECONDS)

    # Afterwards

    async def check(self) -> None:
        """All that was answered is there, also after every server was killed once more."""
        for place, load in zip(self.sites, self.loads, strict=True):
            load.books.check()
            follower = load.books.followers[0]
            made = follower.made
            assert follower.state[COUNTED] == made["count"] + made["thread"]
            assert follower.state[GUARDED] == made["lock"]
            assert min(made[kind] for kind in ("count", "thread", "lock", "put", "transfer", "present"))
            for number in range(len(place.servers)):
                await place.restart(number, kill=True)
            async with load.connect(next(place.orders)) as client:
                kept = {entry.key: entry.value async for entry in client.list() if not entry.key.startswith("locks/")}
            assert kept == {key: value for key, value in follower.state.items() if not key.startswith("locks/")}
            for server in place.servers:
                assert "Traceback" not in server.log()

    async def _weigh(self) -> None:
        process = psutil.Process()
        await asyncio.sleep(SETTLE_SECONDS)
        while True:
            now = time.monotonic()
            for server in (server for each in self.sites for server in each.servers):
                with suppress(psutil.NoSuchProcess):  # it is being restarted
                    self.servers.add(f"{server.process.pid}", now, memory(server) / MIB)
            self.clients.add("", now, process.memory_info().rss / MIB)
            await asyncio.sleep(SAMPLE_SECONDS)


@pytest.fixture
async def chaos(tmp_path: Path) -> AsyncIterator[Chaos]:
    papers = Papers(tmp_path)
    arguments = (*papers.arguments, "--retention-commits", str(RETENTION))
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        sites = [
            await stack.enter_async_context(site("redis", 2, redis.url, *arguments)),
            await stack.enter_async_context(site("sqlite", 1, f"sqlite:{tmp_path / 'state.db'}", *arguments)),
        ]
        yield Chaos(papers, sites)


@pytest.mark.soak
@pytest.mark.first
@pytest.mark.timeout(DURATION + 600)
async def test_what_was_answered_stays_whatever_befalls_a_deployment(
    chaos: Chaos, record_property: Callable[[str, object], None]
) -> None:
    await chaos.run(DURATION)
    await chaos.check()
    record_property("servers_mib_per_hour", round(chaos.servers.per_hour, 1))
    record_property("clients_mib_per_hour", round(chaos.clients.per_hour, 1))
    record_property("writes", sum(load.books.followers[0].made.total() for load in chaos.loads))
    record_property("blows", dict(chaos.blows))
    record_property("failed_calls", dict(chaos.failures))
    record_property("longest_call_seconds", round(max(load.books.longest for load in chaos.loads), 1))
    if DURATION >= JUDGED_SECONDS:
        assert chaos.servers.per_hour < MOST_MIB_PER_HOUR
        assert chaos.clients.per_hour < MOST_MIB_PER_HOUR
